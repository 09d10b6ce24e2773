"""The triplet loss with the hardest positive and the hardest negative of each anchor."""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.losses.distances import (
    Distance,
    check_batch,
    compare_all,
    margin_as,
)


def hard_triplet_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float | tf.Tensor = 1.0,
    soft: bool = False,
    distance_metric: Distance = "L2",
) -> tf.Tensor:
    """Returns the "batch hard" triplet loss as TensorFlow Addons defines it.

    For every anchor its farthest positive and its nearest negative; the mean over the anchors of
    max(0, margin + d(a, p) - d(a, n)) (Hermans et al. 2017, "In Defense of the Triplet Loss").
    As in TFA an anchor without positives counts with its nearest picture, commonly itself, in the
    positive's place, one without negatives with its farthest picture in the negative's.

    Args:
      labels: [batch] or [batch, 1], item of each picture; see `semi_hard_triplet_loss`.
      embeddings: float [batch, dim]; float16 and bfloat16 are computed with in float32.
      margin: by how much a negative should be farther than a positive.
      soft: log(1 + exp(d(a, p) - d(a, n))) instead, which has no margin.
      distance_metric: one of `DISTANCES`, or a function from embeddings [batch, dim] to
        distances [batch, batch].

    Returns:
      Scalar of the type of the embeddings; 0, with a gradient of 0, for a batch without positives
      (TFA's is not).

    Raises:
      ValueError: if shapes or distance are none of these.
    """
    labels, embeddings = check_batch(labels, embeddings)
    distances, same_item, positive = compare_all(labels, embeddings, distance_metric)
    nearest_negative = _masked_minimum(distances, ~same_item)
    farthest_positive = -_masked_minimum(-distances, positive)
    difference = farthest_positive - nearest_negative
    if soft:
        losses = tf.math.softplus(difference)
    else:
        losses = tf.maximum(margin_as(distances.dtype, margin) + difference, 0.0)
    anchors = tf.cast(tf.reduce_any(positive), losses.dtype) * tf.cast(
        tf.size(labels), losses.dtype
    )
    return tf.cast(tf.math.divide_no_nan(tf.reduce_sum(losses), anchors), embeddings.dtype)


def _masked_minimum(rows: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns the smallest values [rows, 1] where a mask is true, else the greatest of the row."""
    greatest = tf.reduce_max(rows, axis=1, keepdims=True)
    least = tf.reduce_min(tf.where(mask, rows - greatest, 0.0), axis=1, keepdims=True)
    return least + greatest
