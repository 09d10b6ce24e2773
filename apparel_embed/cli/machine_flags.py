"""Flags of what a machine is asked for."""

from __future__ import annotations

import os

from absl import flags


class ProcessesFlag:
    """How many processes work on pictures."""

    def __init__(self) -> None:
        self._processes = flags.DEFINE_integer(
            "processes",
            0,
            "processes that work on pictures, 0 for one per core (0 to 256); makes no difference "
            "to the result",
            lower_bound=0,
            upper_bound=256,
        )

    @property
    def value(self) -> int:
        """Number of processes."""
        return self._processes.value or os.cpu_count() or 1
