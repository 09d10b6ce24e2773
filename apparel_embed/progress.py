"""Progress bars that are quiet when nobody watches."""

from __future__ import annotations

from collections.abc import Iterable
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
