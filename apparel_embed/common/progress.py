"""Progress bars on a terminal, and lines in a log."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

SECONDS_UNSEEN = 5.0
"""A `delay` for work that is usually too short to need a bar."""

_SECONDS_BETWEEN_LINES = 30.0
_LINE = "{desc}: {n_fmt} of {total_fmt}{unit} in {elapsed}, {remaining} left{postfix}"


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    what: str,
    unit: str,
    delay: float = 0.0,
) -> tqdm:
    """Returns a progress bar on stderr; without a terminal, one that logs progress and time left.

    It logs a line every 30 s, so shorter work logs nothing.

    Args:
      iterable: iterable to wrap; without it call `update` on the bar.
      total: total number of units, if the iterable has no length.
      initial: units already done.
      what: the work in one or two words, shown before the bar.
      unit: name of one unit, e.g. "images".
      delay: seconds before a terminal shows the bar.
    """
    if sys.stderr.isatty():
        shown: dict[str, Any] = {"delay": delay, "dynamic_ncols": True}
    else:
        seconds = _SECONDS_BETWEEN_LINES
        shown = {
            "file": _LogLines(),
            "bar_format": _LINE,
            "delay": seconds,
            "mininterval": seconds,
            "maxinterval": seconds,
            "miniters": 1,
        }
    return tqdm(iterable, total=total, initial=initial, desc=what, unit=f" {unit}", **shown)


class _LogLines(io.TextIOBase):
    """Logs what a bar writes to it."""

    def write(self, text: str, /) -> int:
        if line := text.strip():
            logging.getLogger(__name__).info("%s", line)
        return len(text)
