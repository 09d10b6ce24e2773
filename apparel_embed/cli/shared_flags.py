"""Flags that several binaries have."""

from __future__ import annotations

from pathlib import Path

from apparel_embed.cli.define import WHERE, define
from apparel_embed.common.cores import usable_cores
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.walk import Run


class ProcessesFlag:
    """How many processes work on images."""

    def __init__(self) -> None:
        self._processes = define(
            "processes",
            0,
            "processes that work on pictures, 0 for one per core; makes no difference to the "
            "result",
            0,
            256,
            group=WHERE,
        )

    @property
    def value(self) -> int:
        """Number of processes."""
        return self._processes.value or usable_cores()


class DryRunFlag:
    """Whether only to tell what would be done."""

    def __init__(self) -> None:
        self._dry_run = define(
            "dry_run",
            False,
            "tell what would be done, and of what size, without doing or writing anything",
        )
        self._plan: StagePlan | None = None

    @property
    def is_given(self) -> bool:
        """Whether nothing is to be done."""
        return self._dry_run.value

    def run(self, run_dir: Path, dataset: PreparedDataset) -> Run:
        """Returns a run whose stages are made for real, or not at all."""
        if not self.is_given:
            return Run(run_dir, dataset)
        self._plan = StagePlan(run_dir)
        return Run(run_dir, dataset, self._plan.access)

    def has_told(self) -> bool:
        """Prints what would be done, if nothing is; returns whether that is so."""
        if self._plan:
            print(self._plan.render())
        return self._plan is not None
