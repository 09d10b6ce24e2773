"""Distances between embeddings of a batch, as TensorFlow Addons defines them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Union

import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from apparel_embed.losses.config import DISTANCES

# From here on, neighbouring integers round to the same number.
_EXACT_BELOW = {tf.bfloat16: 2**8, tf.float16: 2**11, tf.float32: 2**24, tf.float64: 2**53}

Distance = Union[str, Callable[[tf.Tensor], tf.Tensor]]
"""One of `DISTANCES`, or a function from embeddings [batch, dim] to distances [batch, batch]."""


def check_distance(distance: Distance) -> Distance:
    """Returns the distance; raises a ValueError if it is neither in `DISTANCES` nor callable."""
    if callable(distance) or distance in DISTANCES:
        return distance
    raise ValueError(
        f"distance_metric {distance!r} is unknown; expected one of {', '.join(DISTANCES)} "
        "or a function from embeddings [batch, dim] to distances [batch, batch]"
    )


def check_batch(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns labels [batch] and embeddings [batch, dim] as tensors.

    Args:
      labels: [batch] or [batch, 1], item of each image.
      embeddings: float [batch, dim].

    Raises:
      ValueError: if their static shapes differ from these, embeddings are not floating-point, or
        labels are floating-point numbers under XLA.
      tf.errors.InvalidArgumentError: if labels are floating-point numbers that may be rounded.
    """
    labels, embeddings = tf.convert_to_tensor(labels), tf.convert_to_tensor(embeddings)
    right = embeddings.shape.rank in (2, None) and embeddings.dtype.is_floating
    right &= labels.shape.rank in (1, None) or (
        labels.shape.rank == 2 and labels.shape[1] in (1, None)
    )
    if right and None not in (labels.shape.rank, embeddings.shape.rank):
        right = labels.shape[:1].is_compatible_with(embeddings.shape[:1])
    if not right:
        raise ValueError(
            f"labels {labels.dtype.name} {labels.shape} and embeddings {embeddings.dtype.name} "
            f"{embeddings.shape}; expected labels [batch] or [batch, 1] and floating-point "
            "embeddings [batch, dim]"
        )
    if labels.dtype.is_floating:
        labels = _unrounded(labels, embeddings.dtype)
    return tf.reshape(labels, [-1]), embeddings


def _unrounded(labels: tf.Tensor, embedding_dtype: tf.DType) -> tf.Tensor:
    """Returns floating-point labels after checking that rounding cannot have merged any.

    Keras casts floating-point labels to the dtype of the model's output before a loss sees them.
    Small integers survive the cast; larger ones cannot be recovered.
    """
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        # XLA drops assertions.
        raise ValueError(
            f"labels of type {labels.dtype.name} cannot be checked for rounding under jit_compile; "
            "pass integers, e.g. labels.astype('int64')"
        )
    kind = labels.dtype
    if kind == embedding_dtype == tf.float64:
        # Keras converts arrays to floatx first, and only then to the output's dtype.
        kind = tf.as_dtype(tf.keras.backend.floatx())
    limit = _EXACT_BELOW[kind]
    right = (tf.abs(labels) < limit) & (labels == tf.floor(labels))
    allowed = (
        f"labels are {kind.name}, in which only whole numbers below {limit} are exact, and Keras "
        "casts floating-point labels to the type of the model's output; pass integers, e.g. "
        "labels.astype('int64'). Wrong labels:"
    )
    check = tf.debugging.Assert(tf.reduce_all(right), [allowed, tf.boolean_mask(labels, ~right)])
    # In eager mode Assert has already run and returns None.
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(labels)


def in_full_precision(embeddings: tf.Tensor) -> tf.Tensor:
    """Returns embeddings in float32, or unchanged if they are float64."""
    return embeddings if embeddings.dtype == tf.float64 else tf.cast(embeddings, tf.float32)


def margin_as(dtype: tf.DType, margin: float | tf.Tensor) -> tf.Tensor:
    """Returns a margin in a dtype; Python numbers are converted without rounding first."""
    return tf.cast(tf.convert_to_tensor(margin, dtype_hint=dtype), dtype)


def points_of(embeddings: tf.Tensor, distance: str) -> tf.Tensor:
    """Returns the points that a distance of `DISTANCES` compares: unit vectors for "angular"."""
    return tf.math.l2_normalize(embeddings, axis=-1) if distance == "angular" else embeddings


def squared_lengths(points: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the squared lengths of points [batch, dim] as a column and as a row.

    Both sum the same numbers but round differently. TFA uses both, so it measures a rounding error
    between equal images. Computing both here reproduces that error.
    """
    return (
        tf.reduce_sum(tf.square(points), axis=1, keepdims=True),
        tf.reduce_sum(tf.square(tf.transpose(points)), axis=0, keepdims=True),
    )


def distances_from_products(
    products: tf.Tensor,
    row_lengths: tf.Tensor,
    column_lengths: tf.Tensor,
    same: tf.Tensor,
    distance: str,
) -> tf.Tensor:
    """Returns the distances between some points and all points of a batch.

    Args:
      products: float [rows, batch], scalar products of the points.
      row_lengths: float [rows, 1], squared lengths of the row points.
      column_lengths: float [1, batch], squared lengths of all points.
      same: bool [rows, batch], true where both are the same image.
      distance: a name in `DISTANCES`.

    Returns:
      float [rows, batch]: "L2" |x - y|, "squared-L2" its square, "angular" 1 - cosine. None is
      negative; with the first two, an image's distance to itself is 0.
    """
    zero = tf.zeros([], products.dtype)
    if distance == "angular":
        return tf.maximum(1.0 - products, zero)
    squared = tf.maximum(row_lengths + column_lengths - 2.0 * products, zero)
    return tf.where(same, zero, tf.sqrt(squared) if distance == "L2" else squared)


def pair_gradient_weights(
    weights: tf.Tensor, distances: tf.Tensor, products: tf.Tensor, distance: str
) -> tf.Tensor:
    """Returns the weight of each pair of points in the gradient of the loss w.r.t. the points.

    With w the weights and t[i, j] = w[i, j] + w[j, i], the gradient w.r.t. point i is the sum
    over j of `t[i, j] * (x[i] - x[j])`; for "angular" it is the sum of `-t[i, j] * x[j]`. The
    weight is 0 at a distance of 0, where the root has no derivative, and where rounding made a
    cosine greater than 1.

    Args:
      weights: float [rows, batch], derivatives of the loss w.r.t. the distances.
      distances: float [rows, batch], from `distances_from_products`.
      products: float [rows, batch], scalar products that the distances were computed from.
      distance: a name in `DISTANCES`.
    """
    if distance == "angular":
        return tf.where(products <= 1.0, weights, 0.0)
    apart = distances > 0
    if distance == "L2":
        return tf.where(apart, weights / tf.where(apart, distances, 1.0), 0.0)
    return tf.where(apart, 2.0 * weights, 0.0)


def pairwise_distances(embeddings: tf.Tensor, distance: Distance) -> tf.Tensor:
    """Returns the distances between all embeddings of a batch, with an always finite gradient.

    Args:
      embeddings: float32 or float64 [batch, dim].
      distance: a name in `DISTANCES`, or a callable that is applied to the embeddings.

    Returns:
      float [batch, batch].

    Examples:
      >>> pairwise_distances(tf.constant([[0.0, 3.0], [4.0, 0.0]]), "L2").numpy()
      array([[0., 5.],
             [5., 0.]], dtype=float32)
    """
    if callable(distance):
        return distance(embeddings)
    points = points_of(embeddings, distance)
    rows, columns = squared_lengths(points)
    products = tf.matmul(points, points, transpose_b=True)
    same = tf.eye(tf.shape(points)[0], dtype=tf.bool)
    if distance != "L2":
        return distances_from_products(products, rows, columns, same, distance)
    squared = distances_from_products(products, rows, columns, same, "squared-L2")
    # The root of 0 has an infinite derivative, and infinity times 0 is NaN, so mask it out first.
    apart = squared > 0
    return tf.where(apart, tf.sqrt(tf.where(apart, squared, 1.0)), 0.0)
