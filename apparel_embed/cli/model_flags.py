"""Flags of models and of the weights they start with."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.cli.recipes import define_recipe
from apparel_embed.models.backbones import BACKBONES
from apparel_embed.models.embedding import POOLINGS, ModelConfig


class InitWeightsFlag:
    """Initial weights of the backbone."""

    def __init__(self) -> None:
        presets = [preset for entry in BACKBONES.values() for preset in entry.presets]
        self._init_weights = flags.DEFINE_string(
            "init_weights",
            "none",
            "initial weights of the backbone: none, a Keras weights file (*.h5), or a keras-cv "
            f"preset (needs the network): {', '.join(presets)}",
        )

    @property
    def value(self) -> str:
        """The word none, a path or the name of a preset."""
        return self._init_weights.value


class ModelFlags:
    """What an embedding model is made of."""

    def __init__(self) -> None:
        default = ModelConfig()
        define_recipe()
        self._backbone = flags.DEFINE_enum(
            "backbone", default.backbone, list(BACKBONES), "backbone of the embedding model"
        )
        self._image_size = define_number(
            "image_size",
            default.image_size,
            "side of the square that the model sees, in pixels",
            32,
            1024,
        )
        self._embedding_dim = define_number(
            "embedding_dim", default.embedding_dim, "length of an embedding", 2, 4096
        )
        self._pooling = flags.DEFINE_enum(
            "pooling",
            default.pooling,
            list(POOLINGS),
            "what an image's features are: the average or the generalised mean (gem) of the "
            "backbone's last level; or pyramid, averages of all its levels and a histogram of the "
            "image's colours",
        )
        self._momentum = define_number(
            "batch_norm_momentum",
            default.batch_norm_momentum,
            "share of the old moving statistics kept each step; short trainings need small values",
            0.0,
            0.9999,
        )
        self._init_weights = InitWeightsFlag()
        self._init_from = flags.DEFINE_string(
            "init_from",
            None,
            "directory of a finished run, with the same --backbone, --pooling and --embedding_dim, "
            "from whose models trainings start instead of --init_weights: specialists from those "
            "of the same verticals, or else from the combined model, the combined model from the "
            "combined one, and the student from the student",
        )

    def config(self) -> ModelConfig:
        """Returns the model's configuration."""
        return ModelConfig(
            backbone=self._backbone.value,
            image_size=self._image_size.value,
            embedding_dim=self._embedding_dim.value,
            pooling=self._pooling.value,
            batch_norm_momentum=self._momentum.value,
        )

    @property
    def init_weights(self) -> str:
        """Initial weights of the backbone."""
        return self._init_weights.value

    @property
    def init_from(self) -> Path | None:
        """Directory of an earlier run to start from, if there is one."""
        return Path(self._init_from.value) if self._init_from.value else None
