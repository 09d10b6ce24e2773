"""Flags that name a run, its dataset and its stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from apparel_embed.cli.define import define
from apparel_embed.cli.shared_flags import dry_run_flag
from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import Run
from apparel_embed.store.names import GROUPING, SPECIALIST, specialist_name
from apparel_embed.store.record import Stage, open_stage


class RunFlag:
    """The run directory.

    Args:
      optional: help text on what happens without the flag; "" makes the flag required.
    """

    def __init__(self, optional: str = "") -> None:
        self._run_dir = define(
            "run_dir",
            None,
            "directory of the run" + (f"; {optional}" if optional else ""),
            required=not optional,
        )

    @property
    def given(self) -> bool:
        """Whether the flag is given."""
        return bool(self._run_dir.value)

    @property
    def run_dir(self) -> Path:
        """Directory of the run."""
        # Only read if the flag is required or given.
        return Path(cast(str, self._run_dir.value))

    @property
    def again(self) -> dict[str, object]:
        """Flag values with which the next binary works on the same run."""
        return {"run_dir": self.run_dir}


class RunFlags(RunFlag):
    """The run directory and the prepared dataset in it."""

    def __init__(self, optional: str = "") -> None:
        super().__init__(optional)
        self._prepared = define("prepared", None, "prepared dataset; by default <run_dir>/prepared")

    @property
    def prepared(self) -> Path:
        """Directory of the prepared dataset."""
        return Path(self._prepared.value or self.run_dir / "prepared")

    @property
    def again(self) -> dict[str, object]:
        """Flag values with which the next binary works on the same run and dataset."""
        return {**super().again, "prepared": self._prepared.value or None}

    def run(self) -> Run:
        """Opens the run with its prepared dataset."""
        return Run(self.run_dir, PreparedDataset.open(self.prepared))

    def stage(self, name: str) -> Stage | None:
        """Opens a finished stage; returns None for the name "none"."""
        return None if name == "none" else open_stage(self.run_dir / name)


class StageRunFlags(RunFlags):
    """A run in which a stage is run, or only planned with --dry_run."""

    def __init__(self) -> None:
        super().__init__()
        self._dry_run = dry_run_flag()
        self._plan: StagePlan | None = None

    @property
    def is_dry(self) -> bool:
        """Whether this is a dry run."""
        return self._dry_run.value

    def run(self) -> Run:
        """Opens the run; in a dry run, its stages are only planned."""
        run = super().run()
        if not self.is_dry:
            return run
        self._plan = StagePlan(self.run_dir)
        return Run(self.run_dir, run.dataset, self._plan.access)

    def print_plan(self) -> bool:
        """Prints the plan of a dry run; returns whether this is one."""
        if self._plan:
            print(self._plan.render())
        return self._plan is not None


class SpecialistsFlag:
    """The specialists that teach the student and are evaluated."""

    def __init__(self) -> None:
        self._specialists = define(
            "specialists",
            (),
            "comma-separated specialist stages that together cover each vertical exactly once; by "
            f"default those of the groups in the run's {GROUPING}-* stage, if any, else all "
            f"finished {SPECIALIST}-* stages",
        )

    def stages(self, run: RunFlags) -> Sequence[Stage]:
        """Opens the stages.

        Raises:
          UserError: a stage is missing, or the run has no specialists.
        """
        names = self._specialists.value or _names_by_groups(run.run_dir)
        names = names or _finished(run.run_dir, SPECIALIST)
        if not names:
            raise UserError(
                f"{run.run_dir}: no finished {SPECIALIST}-* stage; train one with "
                "tools/train_specialist.py"
            )
        return [open_stage(run.run_dir / name) for name in names]


def _finished(run_dir: Path, kind: str) -> list[str]:
    """Returns the names of the run's finished stages of a kind."""
    return sorted(path.name for path in run_dir.glob(f"{kind}-*") if path.suffix != ".partial")


def _names_by_groups(run_dir: Path) -> list[str]:
    """Returns the names of the groups' specialist stages; empty if the run has no grouping."""
    groupings = _finished(run_dir, GROUPING)
    if len(groupings) > 1:
        raise UserError(
            f"{run_dir}: several groupings ({', '.join(groupings)}); name the specialists to use "
            "with --specialists"
        )
    return [
        specialist_name(group)
        for name in groupings
        for group in open_stage(run_dir / name).result["groups"]
    ]
