"""The configuration of targets."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """How targets are made.

    Attributes:
      dim: length of the joint of several teachers: that of the student's embedding.
      seed: of the bootstrap that teachers are chosen by.
    """

    dim: int = 64
    unlabelled: bool = setting(
        True,
        "whether the student learns from images of split unlabelled too; makes no difference "
        "where there are none",
        flag="use_unlabelled",
        group="Targets of the student",
    )
    seed: int = 0
