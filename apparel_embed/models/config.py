"""The configuration of an embedding model."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import same_as, setting
from apparel_embed.models.backbones import BACKBONES

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Keras' policies by name: the type that layers compute in. All store weights in float32."""


PYRAMID = "pyramid"


POOLINGS = ("average", "gem", PYRAMID)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The architecture of an embedding model.

    Attributes:
      pooling: "average" or "gem", of the backbone's last level; or "pyramid", see
        `pyramid_features`.
      batch_norm_momentum: momentum of every batch norm. With the usual 0.99, the moving statistics
        are still wrong after a few hundred steps.

    Examples:
      >>> ModelConfig(backbone="efficientnet_lite_b0", image_size=160).embedding_dim
      64
    """

    backbone: str = setting("small_cnn", "backbone of the embedding model", choices=BACKBONES)
    image_size: int = setting(64, "side of the square that the model sees, in pixels", 32, 1024)
    embedding_dim: int = setting(64, "length of an embedding", 2, 4096)
    pooling: str = setting(
        "average",
        "how features are pooled: the average or the generalised mean (gem) of the backbone's last "
        "level; or pyramid, averages of all its levels and a histogram of the image's colours",
        choices=POOLINGS,
        rare=True,
    )
    batch_norm_momentum: float = setting(
        0.9,
        "share of the moving statistics kept each step; short trainings need small values",
        0.0,
        0.9999,
        rare=True,
    )


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """The architecture of a detector.

    Attributes:
      verticals: names of the verticals that it distinguishes.
      score_threshold: minimum score of a garment.
      batch_norm_momentum: as in `ModelConfig`.

    Examples:
      >>> DetectorConfig(verticals=("bag", "dress")).image_size
      160
    """

    verticals: tuple[str, ...] = ()
    backbone: str = setting(
        "small_cnn",
        "backbone of the detector",
        choices=BACKBONES,
        flag="detector_backbone",
        rare=True,
    )
    image_size: int = setting(
        160,
        "side of the square that the detector sees, in pixels",
        64,
        2048,
        flag="detector_image_size",
        rare=True,
    )
    most_garments: int = setting(
        10, "maximum number of garments found in a photograph", 1, 100, rare=True
    )
    score_threshold: float = 0.3
    batch_norm_momentum: float = same_as(ModelConfig, "batch_norm_momentum")
