"""Flags of the student's targets."""

from __future__ import annotations

from absl import flags

from apparel_embed.data.augment import AugmentConfig
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
        self._views = flags.DEFINE_integer(
            "target_views",
            default.views,
            "views of a picture over which its target is averaged: the picture itself and others "
            f"augmented as --augment_* say (1 to {MOST_VIEWS})",
            lower_bound=1,
            upper_bound=MOST_VIEWS,
        )
        self._separation = flags.DEFINE_float(
            "separate_groups",
            default.separation,
            "how far the targets of different groups are kept apart, by further dimensions, one "
            f"for each group (0 to {MOST_SEPARATION:g}, 0 is off)",
            lower_bound=0.0,
            upper_bound=MOST_SEPARATION,
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
