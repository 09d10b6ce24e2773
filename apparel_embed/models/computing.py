"""How a model computes: precision, batch norm over replicas, and number of multiply-adds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from apparel_embed.models.config import PRECISIONS


@contextlib.contextmanager
def layer_precision(name: str) -> Iterator[None]:
    """Sets one of `PRECISIONS` for layers created in the block."""
    # The global policy is the only way to reach the layers that a library's backbone creates.
    # Restoring it keeps layers created later unaffected.
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(PRECISIONS[name])
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def set_momentum(model: tf.keras.Model, momentum: float) -> None:
    """Sets the share of the moving statistics that every batch norm of a model keeps each step."""
    for layer in _batch_norms(model):
        layer.momentum = momentum
        # TensorFlow's fused kernel stores variances n / (n - 1) times as large as those it divides
        # by; Keras' synchronised batch norm does not. Only the latter works with both.
        layer._bessels_correction_test_only = False


def synchronise(model: tf.keras.Model) -> None:
    """Makes every batch norm of a model normalise with the statistics of all replicas' images.

    The result is that of one device with the whole batch; by default each replica uses only its own
    part. Call it in a strategy's scope, before the model is first called for training.
    """
    for layer in _batch_norms(model):
        layer.synchronized = True
        # No fused kernel supports synchronisation.
        layer.fused = False


def _batch_norms(model: tf.keras.Model) -> list[tf.keras.layers.BatchNormalization]:
    kind = tf.keras.layers.BatchNormalization
    return [layer for layer in model.submodules if isinstance(layer, kind)]


def multiply_adds(model: tf.keras.Model) -> int:
    """Returns the multiply-adds of one image's forward pass, as TensorFlow's profiler counts them.

    Args:
      model: takes float32 [batch, size, size, 3].

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
