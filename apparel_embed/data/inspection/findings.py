"""Findings about a dataset: severity, description, rows, and advice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from apparel_embed.common.text import counted

ERROR = "error"
WARNING = "warning"
NOTE = "note"
# The most severe first. An error breaks training or falsifies results; a warning is a likely
# mistake or costs data; a note is for information.
SEVERITIES = (ERROR, WARNING, NOTE)
_NAMES_SHOWN = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Finding:
    """A finding about a dataset.

    Attributes:
      code: a stable machine-readable name of its kind.
      severity: one of SEVERITIES.
      count: the number of images, items, queries ... concerned.
      what: one sentence with the count.
      advice: one sentence on what to do.
      rows: int64 indices of the manifest rows concerned, from 0.
      others: for each of `rows` the row that conflicts with it; None if rows are reported singly.
      details: one text per row, or one for all.
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
        """Returns the detail of the given element of `rows`."""
        return self.details if isinstance(self.details, str) else self.details[number]


def found(
    code: str, severity: str, count: int, noun: str, what: str, advice: str, **where: Any
) -> Iterator[Finding]:
    """Yields a finding if `count` is not 0.

    Args:
      code: see `Finding`, like `severity`, `count` and `advice`.
      severity: the severity.
      count: the number of things concerned.
      noun: a singular noun for the things counted.
      what: the rest of the sentence that begins with the count and the noun.
      advice: the advice.
      **where: `rows`, `others` and `details` of the finding.
    """
    if count:
        noun_of_many = {"query": "queries"}.get(noun)
        sentence = f"{counted(count, noun, noun_of_many)} {what}"
        yield Finding(code, severity, count, sentence, advice, **where)


def some_names(names: Sequence[str]) -> str:
    """Returns a list of names for a sentence, cut to the first few."""
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
