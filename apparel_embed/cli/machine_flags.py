"""Flags of what a machine is asked for."""

from __future__ import annotations

from apparel_embed.cli.define import define_number
from apparel_embed.common.cores import usable_cores


class ProcessesFlag:
    """How many processes work on pictures."""

    def __init__(self) -> None:
        self._processes = define_number(
            "processes",
            0,
            "processes that work on pictures, 0 for one per core; makes no "
            "difference to the result",
            0,
            256,
        )

    @property
    def value(self) -> int:
        """Number of processes."""
        return self._processes.value or usable_cores()
