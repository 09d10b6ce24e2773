"""Flags of the student's targets, and of where it starts."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.data.augment import AugmentConfig
from apparel_embed.stage_record import Stage
from apparel_embed.stages import COMBINED
from apparel_embed.student_stages import REFERENCES
from apparel_embed.training.separation import MOST_SEPARATION
from apparel_embed.training.targets import ALIGN_ON, TargetsConfig
from apparel_embed.training.views import MOST_VIEWS


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
        default = TargetsConfig()
        said = "; ".join(f"{name}, {what}" for name, what in REFERENCES.items())
        self._align_to = flags.DEFINE_enum(
            "align_to",
            next(iter(REFERENCES)),
            list(REFERENCES),
            f"space onto which the specialists' are rotated for the student: {said}",
        )
        self._align_on = flags.DEFINE_enum(
            "align_on",
            default.align_on,
            list(ALIGN_ON),
            "pictures that a specialist's rotation is worked out from: those of its own group, or "
            "those of all groups, which all specialists embed then",
        )
        self._views = define_number(
            "target_views",
            default.views,
            "views of a picture over which its target is averaged: the picture itself and others "
            "augmented as --augment_* say",
            1,
            MOST_VIEWS,
        )
        self._separation = define_number(
            "separate_groups",
            default.separation,
            "how far the targets of different groups are kept apart, by further dimensions, one "
            "for each group; 0 is off",
            0.0,
            MOST_SEPARATION,
        )
        self._unlabelled = unlabelled_flag()

    @property
    def align_to(self) -> str:
        """A name in `REFERENCES`."""
        return self._align_to.value

    def config(self, augment: AugmentConfig, seed: int) -> TargetsConfig:
        """Returns the configuration of targets.

        Args:
          augment: how views are made.
          seed: of views.
        """
        return TargetsConfig(
            views=self._views.value,
            augment=augment,
            seed=seed,
            separation=self._separation.value,
            align_on=self._align_on.value,
            unlabelled=self._unlabelled.value,
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
