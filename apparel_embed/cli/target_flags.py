"""Flags of the student's targets, and of the models that trainings start from."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.common.errors import UserError
from apparel_embed.distillation.config import TargetsConfig
from apparel_embed.runs.config import REFERENCES
from apparel_embed.store.names import COMBINED_START
from apparel_embed.store.record import Stage, open_stage

_STARTS = {
    "specialist": "specialists start from, and keep if they do not improve on split val: combined, "
    "that of this run; none, that of --init_from, or --init_weights; auto, combined without "
    "--init_from, else none",
    "student": "the student starts from: combined, that of this run; none, the student of "
    "--init_from, or --init_weights; auto, that of --init_from, else the student of the run that "
    "--align_to names if it has the same architecture, else combined",
}


class TargetFlags:
    """Flags for the targets' alignment, construction and images."""

    def __init__(self) -> None:
        references = "; ".join(f"{name}, {what}" for name, what in REFERENCES.items())
        self._align_to = define(
            "align_to",
            next(iter(REFERENCES)),
            f"embedding space onto which the teachers' are rotated: {references}; or the directory "
            "of an earlier run, whose student then also teaches its verticals. The new student's "
            "queries can then be searched among the earlier student's embeddings",
            rare=True,
        )
        flags.register_validator(
            "align_to",
            lambda value: value in REFERENCES or Path(value).is_dir(),
            f"expected {'|'.join(REFERENCES)} or the directory of a finished run",
        )
        self._targets = ConfigFlags(TargetsConfig)

    @property
    def align_to(self) -> str:
        """A name in `REFERENCES`, or the directory of a run."""
        return self._align_to.value

    def config(self, dim: int, seed: int) -> TargetsConfig:
        """Returns the configuration of targets.

        Args:
          dim: length of the student's embedding.
          seed: seed of the bootstrap that selects teachers.
        """
        return self._targets.config(dim=dim, seed=seed)


class StartFlag:
    """The model whose weights a training starts from.

    Args:
      who: "specialist" or "student".
    """

    def __init__(self, who: str) -> None:
        self._who = who
        self._start = define(
            f"{who}_start",
            "auto",
            f"model whose weights {_STARTS[who]}",
            choices=("auto", "combined", "none"),
            rare=True,
        )

    def from_combined(self, init_from: Path | None) -> bool:
        """Returns whether the training starts from the combined model.

        Args:
          init_from: directory of an earlier run whose models trainings start from, or None.
        """
        return not init_from if self.requested is None else self.requested

    @property
    def requested(self) -> bool | None:
        """Whether the flag names the combined model; None if other flags decide."""
        start = self._start.value
        return None if start == "auto" else start == "combined"

    def stage(self, run: RunFlags, init_from: Path | None) -> Stage | None:
        """Opens the combined model's stage; returns None if the training does not start from it.

        Raises:
          UserError: the stage is missing. The message contains the remedy.
        """
        if not self.from_combined(init_from):
            return None
        try:
            return open_stage(run.run_dir / COMBINED_START)
        except UserError as error:
            raise UserError(
                f"{error}; train it first (tools/train_specialist.py --verticals=all "
                f"--stage={COMBINED_START}), or start from other weights (--{self._who}_start=none)"
            ) from error
