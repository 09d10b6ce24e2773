"""Flags that name a run, its dataset and its stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.runs import Stage, open_stage
from apparel_embed.stages import COMBINED, specialist_name


class RunFlags:
    """The run directory and the prepared dataset in it."""

    def __init__(self) -> None:
        self._run_dir = flags.DEFINE_string("run_dir", None, "directory of the run", required=True)
        self._prepared = flags.DEFINE_string(
            "prepared", None, "prepared dataset; by default <run_dir>/prepared"
        )

    @property
    def run_dir(self) -> Path:
        """Directory of the run."""
        return Path(self._run_dir.value)

    def dataset(self) -> PreparedDataset:
        """Opens the prepared dataset."""
        return PreparedDataset.open(self._prepared.value or self.run_dir / "prepared")

    def stage(self, name: str) -> Stage | None:
        """Opens a finished stage; None for the name "none"."""
        return None if name == "none" else open_stage(self.run_dir / name)


def measure_speed_flag() -> flags.FlagHolder[bool]:
    """Returns the flag that says whether the report measures how fast models are."""
    return flags.DEFINE_bool(
        "measure_speed",
        True,
        "measure images per second for the report; without, the same inputs give the same report",
    )


class StudentStartFlag:
    """The model from whose weights the student starts."""

    def __init__(self) -> None:
        self._start = flags.DEFINE_enum(
            "student_start",
            "auto",
            ["auto", COMBINED, "none"],
            "model from whose weights the student starts: combined, that of this run; none, the "
            "student of --init_from, or --init_weights; auto, combined where there is no "
            "--init_from, else none",
        )

    def from_combined(self, init_from: Path | None) -> bool:
        """Returns whether it is the combined model.

        Args:
          init_from: directory of an earlier run whose models trainings start from, or None.
        """
        return self._start.value == COMBINED or (self._start.value == "auto" and not init_from)

    def stage(self, run: RunFlags, init_from: Path | None) -> Stage | None:
        """Opens the stage of the combined model; None if it is not that model."""
        return run.stage(COMBINED) if self.from_combined(init_from) else None


class SpecialistsFlag:
    """The specialists that are the student's teachers, and that evaluation speaks of."""

    def __init__(self) -> None:
        self._specialists = flags.DEFINE_list(
            "specialists",
            [],
            "comma-separated stages of specialists that together know every vertical once; by "
            "default those of the groups in the run's grouping-* stage, if there is one, else all "
            "finished specialist-* stages",
        )

    def stages(self, run: RunFlags) -> Sequence[Stage]:
        """Opens the stages.

        Raises:
          UserError: if one is missing or there is none.
        """
        names = self._specialists.value or _names_by_groups(run.run_dir)
        names = names or _finished(run.run_dir, "specialist-*")
        if not names:
            raise UserError(
                f"{run.run_dir}: has no finished specialist-* stage; train one with "
                "tools/train_specialist.py"
            )
        return [open_stage(run.run_dir / name) for name in names]


def _finished(run_dir: Path, pattern: str) -> list[str]:
    """Returns the names of the run's finished stages that match a pattern, sorted."""
    return sorted(path.name for path in run_dir.glob(pattern) if path.suffix != ".partial")


def _names_by_groups(run_dir: Path) -> list[str]:
    """Returns the stages of the groups' specialists, or none if no groups were made."""
    groupings = _finished(run_dir, "grouping-*")
    if len(groupings) > 1:
        raise UserError(
            f"{run_dir}: has several groupings ({', '.join(groupings)}); name the specialists to "
            "use with --specialists"
        )
    return [
        specialist_name(group)
        for name in groupings
        for group in open_stage(run_dir / name).result["groups"]
    ]
