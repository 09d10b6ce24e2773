"""The student's loss: how far its embeddings are from the specialists'."""

from __future__ import annotations

import tensorflow as tf


def mean_squared_error(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Mean over pictures and dimensions of the squared difference.

    Args:
      targets: float32 [batch, dim], the specialists' embeddings.
      embeddings: float32 [batch, dim], the student's.

    Returns:
      float32 scalar; for unit vectors it is `(2 - 2 cos) / dim`.
    """
    return tf.reduce_mean(tf.math.squared_difference(embeddings, targets))
