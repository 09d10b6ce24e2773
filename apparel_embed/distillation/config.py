"""The configuration of targets."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """The settings of targets.

    Attributes:
      dim: dimensions of the joint embedding of several teachers, as of the student's.
      seed: seed of the bootstrap for the choice of teachers.
    """

    dim: int = 64
    unlabelled: bool = setting(
        True,
        "whether the student also learns from images of split unlabelled; has no effect if there "
        "are none",
        flag="use_unlabelled",
        group="Targets of the student",
    )
    seed: int = 0
