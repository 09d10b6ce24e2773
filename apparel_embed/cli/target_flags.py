"""Flags of the student's targets, and of where trainings start."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.common.errors import UserError
from apparel_embed.distillation.targets import TargetsConfig
from apparel_embed.runs.stages.targets import REFERENCES
from apparel_embed.store.names import COMBINED_START
from apparel_embed.store.record import Stage, open_stage


def unlabelled_flag() -> flags.FlagHolder[bool]:
    """Returns the flag that says whether targets are made of unlabelled pictures, too."""
    return flags.DEFINE_bool(
        "use_unlabelled",
        TargetsConfig().unlabelled,
        "whether the student learns from pictures of split unlabelled too; makes no difference "
        "where there are none",
    )


class TargetFlags:
    """Onto what targets are aligned, how they are made, and of which pictures."""

    def __init__(self) -> None:
        said = "; ".join(f"{name}, {what}" for name, what in REFERENCES.items())
        self._align_to = flags.DEFINE_enum(
            "align_to",
            next(iter(REFERENCES)),
            list(REFERENCES),
            f"space onto which those of teachers are rotated for the student: {said}",
        )
        self._unlabelled = unlabelled_flag()

    @property
    def align_to(self) -> str:
        """A name in `REFERENCES`."""
        return self._align_to.value

    def config(self, dim: int, seed: int) -> TargetsConfig:
        """Returns the configuration of targets.

        Args:
          dim: length of the student's embedding.
          seed: of the bootstrap that teachers are chosen by.
        """
        return TargetsConfig(dim=dim, unlabelled=self._unlabelled.value, seed=seed)


class SpecialistStartFlag:
    """The model from whose weights specialists start."""

    def __init__(self) -> None:
        self._start = flags.DEFINE_enum(
            "specialist_start",
            "auto",
            ["auto", "combined", "none"],
            "model from whose weights specialists start, and which they keep where they gain "
            "nothing on split val: combined, that of this run; none, that of --init_from, or "
            "--init_weights; auto, combined where there is no --init_from, else none",
        )

    def from_combined(self, init_from: Path | None) -> bool:
        """Returns whether it is the combined model; the argument is as in `StudentStartFlag`."""
        return _is_combined(self._start.value, init_from)

    def stage(self, run: RunFlags, init_from: Path | None) -> Stage | None:
        """Opens the stage of the combined model; None if it is not that model."""
        return _combined_start(run, "specialist") if self.from_combined(init_from) else None


class StudentStartFlag:
    """The model from whose weights the student starts."""

    def __init__(self) -> None:
        self._start = flags.DEFINE_enum(
            "student_start",
            "auto",
            ["auto", "combined", "none"],
            "model from whose weights the student starts: combined, that of this run; none, the "
            "student of --init_from, or --init_weights; auto, combined where there is no "
            "--init_from, else none",
        )

    def from_combined(self, init_from: Path | None) -> bool:
        """Returns whether it is the combined model.

        Args:
          init_from: directory of an earlier run whose models trainings start from, or None.
        """
        return _is_combined(self._start.value, init_from)

    def stage(self, run: RunFlags, init_from: Path | None) -> Stage | None:
        """Opens the stage of the combined model; None if it is not that model."""
        return _combined_start(run, "student") if self.from_combined(init_from) else None


def _is_combined(start: str, init_from: Path | None) -> bool:
    return start == "combined" or (start == "auto" and not init_from)


def _combined_start(run: RunFlags, what: str) -> Stage:
    """Opens the stage of the combined model that others start from.

    Raises:
      UserError: if it is not there, with what to do.
    """
    try:
        return open_stage(run.run_dir / COMBINED_START)
    except UserError as error:
        raise UserError(
            f"{error}; train it first (tools/train_specialist.py --verticals=all "
            f"--stage={COMBINED_START}), or start elsewhere (--{what}_start=none)"
        ) from error
