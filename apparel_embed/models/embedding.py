"""The embedding model: backbone, pooling, projection, unit length."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path, read_json, write_json
from apparel_embed.models.backbones import (
    find_backbone,
    load_initial_weights,
    without_keras_warnings,
)
from apparel_embed.models.computing import set_momentum
from apparel_embed.models.config import POOLINGS, PYRAMID, ModelConfig
from apparel_embed.models.pooling import NORM, POOLED, POOLING, GeMPooling, pyramid_features

_CONFIG_FILE = "model.json"
_WEIGHTS_FILE = "model.weights.h5"


def build_embedding_model(config: ModelConfig, init_weights: str = "none") -> tf.keras.Model:
    """Returns a Keras model from images to embeddings of unit length.

    Args:
      config: what to build.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.

    Returns:
      A model from float32 [batch, image_size, image_size, 3] with values 0..255 (RGB) to float32
      [batch, embedding_dim]. It has layers named "backbone", "pooling" and "projection".

    Raises:
      UserError: if the configuration names an unknown backbone or pooling.

    Examples:
      >>> model = build_embedding_model(ModelConfig(image_size=32, embedding_dim=8))
      >>> model(tf.zeros([2, 32, 32, 3])).shape
      TensorShape([2, 8])
    """
    entry = find_backbone(config.backbone)
    if config.pooling not in POOLINGS:
        raise UserError(f"pooling {config.pooling!r}: expected one of {', '.join(POOLINGS)}")
    shape = (config.image_size, config.image_size, 3)
    backbone = entry.build(shape)
    load_initial_weights(backbone, config.backbone, init_weights)
    if config.pooling == PYRAMID:
        levels = [backbone.get_layer(name).output for name in entry.levels(backbone)]
        backbone = tf.keras.Model(backbone.input, levels)
    backbone._name = "backbone"

    # Everything except the backbone is in float32 whatever the policy: it costs almost nothing, and
    # distances between near neighbours do not survive 16 bits.
    whole: dict[str, Any] = {"dtype": "float32"}
    inputs = tf.keras.Input(shape, name="images", **whole)
    x = tf.keras.layers.Rescaling(entry.scale, entry.offset, name="rescaling", **whole)(inputs)
    x = backbone(x)
    if config.pooling == PYRAMID:
        x = pyramid_features(inputs, x, **whole)
    elif config.pooling == "gem":
        x = GeMPooling(name="pooling", **whole)(x)
    else:
        x = tf.keras.layers.GlobalAveragePooling2D(name="pooling", **whole)(x)
    x = tf.keras.layers.Dense(config.embedding_dim, name="projection", **whole)(x)
    outputs = tf.keras.layers.UnitNormalization(axis=-1, name="embedding", **whole)(x)
    model = tf.keras.Model(inputs, outputs, name="embedding_model")
    set_momentum(model, config.batch_norm_momentum)
    return model


@tf.keras.utils.register_keras_serializable("apparel_embed")
class EmbeddingModel(tf.keras.Model):
    """The embedding model as a Keras model, to compile and fit.

    Arguments, layers and weights are those of `build_embedding_model`. It writes the same files as
    a stage of a run.

    Attributes:
      config: the model's configuration.

    Examples:
      >>> model = EmbeddingModel(ModelConfig(image_size=32, embedding_dim=8))
      >>> model.write("models/mine")
      >>> EmbeddingModel.read("models/mine").predict(np.zeros([2, 32, 32, 3]), verbose=0).shape
      (2, 8)
    """

    def __init__(self, config: ModelConfig = ModelConfig(), init_weights: str = "none") -> None:
        built = build_embedding_model(config, init_weights)
        super().__init__(inputs=built.inputs, outputs=built.outputs, name=built.name)
        self.config = config

    def write(self, directory: str | os.PathLike[str]) -> None:
        """Writes configuration and weights, each file atomically.

        Args:
          directory: created if it does not exist; an existing model is replaced.
        """
        save_embedding_model(Path(directory), self, self.config)

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> EmbeddingModel:
        """Reads a model written by `write` or by a training.

        Args:
          directory: for example `runs/mine/student/model`.

        Raises:
          UserError: if the directory does not contain a model, or it cannot be read.
        """
        model, _ = load_embedding_model(Path(directory), cls)
        return model

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration to recreate the model without its weights."""
        return {"config": dataclasses.asdict(self.config)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: object = None) -> EmbeddingModel:
        """Returns the model that `get_config` describes."""
        return cls(ModelConfig(**config["config"]))


def frozen_feature_model(model: tf.keras.Model) -> tf.keras.Model:
    """Returns a baseline: the model up to pooling, with features scaled to unit length."""
    pooled = model.get_layer("pooling").output
    outputs = tf.keras.layers.UnitNormalization(axis=-1, dtype="float32")(pooled)
    return tf.keras.Model(model.input, outputs, name="frozen_features")


def trunk_model(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the part of a model that does not change while its backbone is frozen.

    Maps images to pooled features float32 [batch, features]. Not for pooling "gem", whose exponent
    is trained.
    """
    return tf.keras.Model(model.input, model.get_layer(_names_of_head(model)[0]).output)


def head_models(model: tf.keras.Model) -> tuple[tf.keras.Model, tf.keras.Model]:
    """Returns the rest of a model, from the trunk's features to embeddings.

    Returns:
      A model from pooled features to embeddings [batch, embedding_dim], and one to embeddings
      before and after they are scaled to unit length. Both share layers and weights with the model.
    """
    *between, projection = head_layers(model)
    features = tf.keras.Input(trunk_model(model).output_shape[1:])
    x = features
    for layer in between:
        x = layer(x)
    vectors = projection(x)
    embeddings = model.get_layer("embedding")(vectors)
    return tf.keras.Model(features, embeddings), tf.keras.Model(features, [vectors, embeddings])


def head_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Returns the layers between a model's trunk and its vectors, ending with the projection."""
    return [model.get_layer(name) for name in (*_names_of_head(model)[1:], "projection")]


def backbone_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """Returns the layers that do not change while the backbone is frozen.

    The norm of its features is one of them: the statistics of fixed features are known, and those
    of a batch would only add noise, or bias if the batch is of one vertical.
    """
    return [layer for layer in model.layers if layer.name in ("backbone", NORM)]


def _names_of_head(model: tf.keras.Model) -> list[str]:
    """Returns the names of the trunk's last layer and of those between it and the projection."""
    has_norm = any(layer.name == NORM for layer in model.layers)
    return [POOLED, NORM, POOLING] if has_norm else [POOLING]


def unscaled_model(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the model with two outputs: embeddings before and after scaling to unit length."""
    return tf.keras.Model(model.input, [model.get_layer("projection").output, model.output])


def start_embedding_model(
    config: ModelConfig,
    init_weights: str = "none",
    start: Path | None = None,
    rotation: np.ndarray | None = None,
) -> tf.keras.Model:
    """Returns the model that a training begins with.

    Args:
      config: what to train.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      start: directory of a trained model whose weights are used instead, or None. Its image size
        may differ, and its embedding may be shorter; the additional dimensions are zero.
      rotation: float32 [dim, dim], applied to the embeddings of `start`, or None. Distances
        between embeddings do not change.

    Raises:
      UserError: if the trained model has another backbone or pooling, or a longer embedding.
    """
    if start is None:
        return build_embedding_model(config, init_weights)
    model = _started(config, start)
    if rotation is not None:
        projection = model.get_layer("projection")
        projection.set_weights([weights @ rotation for weights in projection.get_weights()])
    return model


def _started(config: ModelConfig, start: Path) -> tf.keras.Model:
    """Returns a model with the weights of a trained one; see `start_embedding_model`."""
    model, built = load_embedding_model(start)
    if built == config:
        return model
    for name, differs in (
        ("backbone", built.backbone != config.backbone),
        ("pooling", built.pooling != config.pooling),
        ("embedding_dim", built.embedding_dim > config.embedding_dim),
    ):
        if differs:
            raise UserError(
                f"cannot start from {start}: expected {name} {getattr(config, name)}, got "
                f"{getattr(built, name)}; backbone and pooling must be the same, and the embedding "
                "not longer"
            )
    wide = build_embedding_model(config)
    # All weights except the projection's have the same shapes; np.pad does not accept scalars.
    wide.set_weights(
        [
            old
            if old.shape == new.shape
            else np.pad(old, [(0, after - before) for before, after in zip(old.shape, new.shape)])
            for old, new in zip(model.get_weights(), wide.get_weights())
        ]
    )
    return wide


def save_embedding_model(directory: Path, model: tf.keras.Model, config: ModelConfig) -> None:
    """Writes configuration and weights to `directory`, each file atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    save_weights(model, directory / _WEIGHTS_FILE)
    write_json(directory / _CONFIG_FILE, dataclasses.asdict(config))


def save_weights(model: tf.keras.Model, path: Path) -> None:
    """Writes a model's weights to a file, `*.weights.h5`, atomically."""
    with atomic_path(path) as temporary, without_keras_warnings():
        model.save_weights(temporary)


def load_weights(model: tf.keras.Model, path: Path) -> None:
    """Reads weights that `save_weights` wrote into a model with the same architecture."""
    with without_keras_warnings():
        model.load_weights(path)


def load_embedding_model(
    directory: Path, build: Callable[[ModelConfig], Any] = build_embedding_model
) -> tuple[Any, ModelConfig]:
    """Builds the model that `save_embedding_model` wrote and reads its weights.

    Raises:
      UserError: if the directory does not contain a model, or it cannot be read.
    """
    for name in (_CONFIG_FILE, _WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise UserError(f"{directory}: expected an embedding model, but {name} is missing")
    try:
        config = ModelConfig(**read_json(directory / _CONFIG_FILE))
        model = build(config)
        load_weights(model, directory / _WEIGHTS_FILE)
    except (OSError, TypeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{directory}: the model cannot be read: {reason}") from error
    return model, config
