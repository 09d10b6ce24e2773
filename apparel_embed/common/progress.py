"""Progress bars that are quiet when nobody watches."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

SECONDS_UNSEEN = 5.0
"""A `delay` for what is mostly over soon, and needs no bar then."""


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    what: str,
    unit: str,
    delay: float = 0.0,
) -> tqdm:
    """Returns a bar with rate and time left on stderr; nothing where stderr is no terminal.

    Args:
      iterable: what to walk through; without it call `update` on the bar.
      total: number of units in all, if the iterable has no length.
      initial: units that were done before.
      what: the work in one or two words, shown before the bar.
      unit: name of one unit, e.g. "images".
      delay: seconds for which nothing is shown; work that is done by then goes unseen.
    """
    return tqdm(
        iterable,
        total=total,
        initial=initial,
        desc=what,
        unit=f" {unit}",
        delay=delay,
        disable=None,
        dynamic_ncols=True,
    )


class Pace:
    """Says once how long steps will take, for logs in which nobody sees a bar.

    Args:
      first: number of the step from whose end on time is taken.
      last: number of the last step.
      clock: returns seconds.

    Examples:
      >>> seconds = iter([0.0, 2.0, 4.0, 6.0])
      >>> pace = Pace(1, 101, clock=lambda: next(seconds), after_seconds=3)
      >>> [pace.after(step) for step in (1, 2, 3, 4)]
      ['', '', '2.000 s a step, about 0:03:16 for the 98 left', '']
    """

    def __init__(
        self,
        first: int,
        last: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        after_seconds: float = 10.0,
    ) -> None:
        self._first, self._last = first, last
        self._clock, self._after_seconds = clock, after_seconds
        self._began: float | None = None
        self._is_said = False

    def after(self, step: int) -> str:
        """Returns what to say after a step; mostly nothing."""
        now = self._clock()
        if self._began is None:
            self._began = now
        took = now - self._began
        if self._is_said or took < self._after_seconds:
            return ""
        self._is_said = True
        each, left = took / (step - self._first), self._last - step
        about = datetime.timedelta(seconds=round(each * left))
        return f"{each:.3f} s a step, about {about} for the {left:,} left"
