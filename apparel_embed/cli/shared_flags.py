"""Flags that several binaries share."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import WHERE, define
from apparel_embed.common.cores import usable_cores


class ProcessesFlag:
    """Flag for the number of processes that work on images."""

    def __init__(self) -> None:
        self._processes = define(
            "processes",
            0,
            "processes that work on images, 0 for one per core; the result does not depend on it",
            0,
            256,
            group=WHERE,
        )

    @property
    def value(self) -> int:
        """Number of processes."""
        return self._processes.value or usable_cores()


def dry_run_flag() -> flags.FlagHolder[bool]:
    """Defines --dry_run, which only reports what would be done."""
    return define(
        "dry_run",
        False,
        "print what would be done and the amount of work; nothing is written",
    )
