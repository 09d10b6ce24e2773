"""The lifted structured loss, which weighs all negatives of a positive pair smoothly."""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.losses.distances import (
    Distance,
    check_batch,
    compare_all,
    margin_as,
)


def lifted_structure_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float | tf.Tensor = 1.0,
    distance_metric: Distance = "L2",
) -> tf.Tensor:
    """Returns the lifted structured loss as TensorFlow Addons defines it, in [batch, batch] memory.

    For every pair (i, j) of pictures of an item J = d(i, j) + log(sum of exp(margin - d(i, n)) +
    sum of exp(margin - d(j, n))) over the negatives n; half the mean over the pairs of
    max(0, J)^2 (Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding").

    Args:
      labels: [batch] or [batch, 1], item of each picture; see `semi_hard_triplet_loss`.
      embeddings: float [batch, dim]; float16 and bfloat16 are computed with in float32.
      margin: by how much a negative should be farther than a positive.
      distance_metric: one of `DISTANCES` (TFA knows "L2" only), or a function from embeddings
        [batch, dim] to distances [batch, batch].

    Returns:
      Scalar of the type of the embeddings; 0, with a gradient of 0, for a batch without positives
      or without negatives (TFA's are NaN, and not).

    Raises:
      ValueError: if shapes or distance are none of these.
    """
    labels, embeddings = check_batch(labels, embeddings)
    distances, same_item, positive = compare_all(labels, embeddings, distance_metric)
    # Instead of -infinity, the logarithm of no negatives, whose gradient would be NaN.
    nothing = tf.constant(-1e9, distances.dtype)
    closeness = tf.where(same_item, nothing, margin_as(distances.dtype, margin) - distances)
    of_row = tf.reduce_logsumexp(closeness, axis=1, keepdims=True)
    violations = tf.where(positive, tf.maximum(_log_add(of_row) + distances, 0.0), 0.0)
    pairs = tf.reduce_sum(tf.cast(positive, distances.dtype))
    total = 0.5 * tf.reduce_sum(tf.square(violations))
    return tf.cast(tf.math.divide_no_nan(total, pairs), embeddings.dtype)


def _log_add(logarithms: tf.Tensor) -> tf.Tensor:
    """Returns log(exp(x_i) + exp(x_j)) as [batch, batch], for x [batch, 1]."""
    others = tf.transpose(logarithms)
    greater = tf.stop_gradient(tf.maximum(logarithms, others))
    return greater + tf.math.log(tf.exp(logarithms - greater) + tf.exp(others - greater))
