"""How a model computes: precision, batch norm over replicas, and how much arithmetic it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from apparel_embed.models.config import PRECISIONS


@contextlib.contextmanager
def layer_precision(name: str) -> Iterator[None]:
    """Lets layers that are made in the block compute in one of `PRECISIONS`."""
    # The only way to reach the layers that a library's backbone makes; set back at the end, so that
    # nothing made later is touched.
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(PRECISIONS[name])
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def set_momentum(model: tf.keras.Model, momentum: float) -> None:
    """Sets what share of its moving statistics every batch norm of a model keeps each step."""
    for layer in _batch_norms(model):
        layer.momentum = momentum
        # TensorFlow's fused kernel keeps variances n / (n - 1) times as large as those it divides
        # by, Keras' synchronised batch norm does not. Of the two the latter can be had of both.
        layer._bessels_correction_test_only = False


def synchronise(model: tf.keras.Model) -> None:
    """Has every batch norm of a model normalise by the statistics of all replicas' images.

    As on one device with the whole batch; usually each replica takes its own part's. To be called
    in a strategy's scope, before the model is called for training.
    """
    for layer in _batch_norms(model):
        layer.synchronized = True
        # There is no fused kernel for it.
        layer.fused = False


def _batch_norms(model: tf.keras.Model) -> list[tf.keras.layers.BatchNormalization]:
    kind = tf.keras.layers.BatchNormalization
    return [layer for layer in model.submodules if isinstance(layer, kind)]


def multiply_adds(model: tf.keras.Model) -> int:
    """Returns the multiply-adds of one image's forward pass, as TensorFlow's profiler counts them.

    Args:
      model: from float32 [batch, size, size, 3].

    Examples:
      >>> from apparel_embed import EmbeddingModel, ModelConfig
      >>> multiply_adds(EmbeddingModel(ModelConfig(image_size=32, embedding_dim=8))) > 1_000_000
      True
    """
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    forward = tf.function(lambda images: model(images, training=False))
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    found = tf.compat.v1.profiler.profile(
        forward.get_concrete_function(signature).graph,
        options=builder(builder.float_operation()).with_empty_output().build(),
    )
    return found.total_float_ops // 2
