"""How much arithmetic a model takes."""

from __future__ import annotations

import tensorflow as tf


def multiply_adds(model: tf.keras.Model) -> int:
    """Returns the multiply-adds of one image's forward pass, as TensorFlow's profiler counts them.

    Args:
      model: from float32 [batch, size, size, 3].

    Example:
      >>> from apparel_embed import EmbeddingModel, ModelConfig
      >>> multiply_adds(EmbeddingModel(ModelConfig(image_size=32, embedding_dim=8))) > 1_000_000
      True
    """
    signature = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    graph = tf.function(lambda images: model(images, training=False)).get_concrete_function(
        signature
    )
    options = (
        tf.compat.v1.profiler.ProfileOptionBuilder(
            tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
        )
        .with_empty_output()
        .build()
    )
    found = tf.compat.v1.profiler.profile(graph.graph, options=options)
    return found.total_float_ops // 2
