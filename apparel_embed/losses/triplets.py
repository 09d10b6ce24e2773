"""The other triplet losses, computed from all distances in a batch at once."""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.losses.distances import (
    Distance,
    check_batch,
    check_distance,
    in_full_precision,
    margin_as,
    pairwise_distances,
)


def hard_triplet_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float | tf.Tensor = 1.0,
    soft: bool = False,
    distance_metric: Distance = "L2",
) -> tf.Tensor:
    """Returns the "batch hard" triplet loss as TensorFlow Addons defines it.

    Takes the farthest positive and the nearest negative of every anchor, and returns the mean over
    the anchors of max(0, margin + d(a, p) - d(a, n)) (Hermans et al. 2017, "In Defense of the
    Triplet Loss"). As in TFA, an anchor without positives uses its nearest image, usually itself,
    as the positive, and one without negatives uses its farthest image as the negative.

    Args:
      labels: [batch] or [batch, 1], item of each image; see `semi_hard_triplet_loss`.
      embeddings: float [batch, dim]; float16 and bfloat16 are computed in float32.
      margin: how much farther a negative should be than a positive.
      soft: whether to use log(1 + exp(d(a, p) - d(a, n))) instead, which has no margin.
      distance_metric: a name in `DISTANCES`, or a function from embeddings [batch, dim] to
        distances [batch, batch].

    Returns:
      A scalar with the dtype of the embeddings; 0, with gradient 0, for a batch without positives
      (unlike TFA's).

    Raises:
      ValueError: if shapes or dtypes are not as above, or the distance is unknown.
    """
    labels, embeddings = check_batch(labels, embeddings)
    distances, same_item, positive = _compare_all(labels, embeddings, distance_metric)
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


def lifted_structure_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float | tf.Tensor = 1.0,
    distance_metric: Distance = "L2",
) -> tf.Tensor:
    """Returns the lifted structured loss as TensorFlow Addons defines it, in [batch, batch] memory.

    For every pair (i, j) of images of an item, J = d(i, j) + log(sum of exp(margin - d(i, n)) +
    sum of exp(margin - d(j, n))) over the negatives n. The loss is half the mean over the pairs of
    max(0, J)^2 (Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding").

    Args:
      labels: [batch] or [batch, 1], item of each image; see `semi_hard_triplet_loss`.
      embeddings: float [batch, dim]; float16 and bfloat16 are computed in float32.
      margin: how much farther a negative should be than a positive.
      distance_metric: a name in `DISTANCES` (TFA supports only "L2"), or a function from embeddings
        [batch, dim] to distances [batch, batch].

    Returns:
      A scalar with the dtype of the embeddings; 0, with gradient 0, for a batch without positives
      (TFA's is NaN) or without negatives (TFA's is not 0).

    Raises:
      ValueError: if shapes or dtypes are not as above, or the distance is unknown.
    """
    labels, embeddings = check_batch(labels, embeddings)
    distances, same_item, positive = _compare_all(labels, embeddings, distance_metric)
    # Stands for -infinity, the logarithm of an empty sum, whose gradient would be NaN.
    nothing = tf.constant(-1e9, distances.dtype)
    closeness = tf.where(same_item, nothing, margin_as(distances.dtype, margin) - distances)
    of_row = tf.reduce_logsumexp(closeness, axis=1, keepdims=True)
    violations = tf.where(positive, tf.maximum(_log_add(of_row) + distances, 0.0), 0.0)
    pairs = tf.reduce_sum(tf.cast(positive, distances.dtype))
    total = 0.5 * tf.reduce_sum(tf.square(violations))
    return tf.cast(tf.math.divide_no_nan(total, pairs), embeddings.dtype)


def _compare_all(
    labels: tf.Tensor, embeddings: tf.Tensor, distance: Distance
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns all distances, which pairs share an item, and which of those are positive pairs."""
    distances = pairwise_distances(in_full_precision(embeddings), check_distance(distance))
    same_item = labels[:, tf.newaxis] == labels
    return distances, same_item, same_item & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool)


def _masked_minimum(rows: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Returns each row's minimum [rows, 1] where a mask is true, or its maximum if nowhere."""
    greatest = tf.reduce_max(rows, axis=1, keepdims=True)
    least = tf.reduce_min(tf.where(mask, rows - greatest, 0.0), axis=1, keepdims=True)
    return least + greatest


def _log_add(logarithms: tf.Tensor) -> tf.Tensor:
    """Returns log(exp(x_i) + exp(x_j)) as [batch, batch], for x [batch, 1]."""
    others = tf.transpose(logarithms)
    greater = tf.stop_gradient(tf.maximum(logarithms, others))
    return greater + tf.math.log(tf.exp(logarithms - greater) + tf.exp(others - greater))
