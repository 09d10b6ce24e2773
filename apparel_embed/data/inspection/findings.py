"""Something found in a dataset: how bad, what, where, and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from apparel_embed.common.text import counted

ERROR = "error"
WARNING = "warning"
NOTE = "note"
# The worst first. An error spoils training or makes figures wrong, a warning is likely a mistake
# or costs data, a note is good to know.
SEVERITIES = (ERROR, WARNING, NOTE)
_NAMES_SHOWN = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """Something found in a dataset.

    Attributes:
      code: its kind, a word for machines that stays the same.
      severity: one of SEVERITIES.
      count: how many images, items, queries ... it is about.
      what: one sentence with the count.
      advice: what to do, one sentence.
      rows: int64 indices of the rows of the manifest it is about, from 0.
      others: for each of `rows` the row that it does not go with; None if it is about single rows.
      details: about each row: as many as `rows`, or one for all.
    """

    code: str
    severity: str
    count: int
    what: str
    advice: str
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    others: np.ndarray | None = None
    details: Sequence[str] | str = ""

    def detail(self, number: int) -> str:
        """Returns the detail of the row of this number, from 0."""
        return self.details if isinstance(self.details, str) else self.details[number]


def found(
    code: str, severity: str, count: int, noun: str, what: str, advice: str, **where: Any
) -> Iterator[Finding]:
    """Yields a finding about some things, if there are any.

    Args:
      code: see `Finding`, also for the others.
      severity: of the finding.
      count: of the things.
      noun: what one of them is called.
      what: follows the count with its noun, and makes a sentence of it.
      advice: of the finding.
      **where: `rows`, `others` and `details` of the finding.
    """
    if count:
        noun_of_many = {"query": "queries"}.get(noun)
        told = f"{counted(count, noun, noun_of_many)} {what}"
        yield Finding(code, severity, count, told, advice, **where)


def some_names(names: Sequence[str]) -> str:
    """Returns names for a sentence, the first ones of many."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
