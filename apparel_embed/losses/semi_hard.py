"""The semi-hard triplet loss in memory that grows no faster than the batch squared.

TensorFlow Addons compares every positive pair with every picture at once, in a matrix of B * B * B
numbers. Here anchors are taken in blocks of rows, and the positives of all of a block's anchors a
few at a time: the next negative farther than each is a minimum over a row. Nothing larger than
some blocks of B-wide rows is held, and the gradient is found in the same pass.
"""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.losses.distances import (
    Distance,
    check_batch,
    check_distance,
    in_full_precision,
    margin_as,
    points_of,
    squared_lengths,
)
from apparel_embed.losses.semi_hard_mining import mine
from apparel_embed.losses.semi_hard_rows import Anchors, ItemIndex

# Numbers in a block of rows, of which about ten are held; but a block has some rows at least.
_BLOCK_SIZE = 2**18
_LEAST_ROWS = 128
# Blocks at work at the same time: what is compiled keeps one core busy, and a part of another.
_BLOCKS_AT_ONCE = 2


@tf.autograph.experimental.do_not_convert  # There is nothing to convert, which takes time.
def semi_hard_triplet_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float | tf.Tensor = 1.0,
    distance_metric: Distance = "L2",
) -> tf.Tensor:
    """Returns the triplet loss with semi-hard negatives, exactly as TensorFlow Addons defines it.

    For every ordered pair (a, p) of pictures of an item the negative with the smallest
    d(a, n) > d(a, p), else the farthest negative; the mean over the pairs of
    max(0, margin + d(a, p) - d(a, n)) (Schroff et al. 2015, "FaceNet"). Where distances are equal
    the gradient is shared as TFA shares it. Has first derivatives only.

    Args:
      labels: [batch] or [batch, 1], item of each picture: integers, texts, or floating-point
        numbers that are whole and not rounded (below 2**24 in float32), and not under XLA.
      embeddings: float [batch, dim]; float16 and bfloat16 are computed with in float32.
      margin: by how much a negative should be farther than a positive.
      distance_metric: one of `DISTANCES`, or a function from embeddings [batch, dim] to
        distances [batch, batch].

    Returns:
      Scalar of the type of the embeddings; 0, with a gradient of 0, for a batch without positives.

    Raises:
      ValueError: if shapes or distance are none of these.

    Example:
      >>> labels = tf.constant([0, 0, 1])
      >>> embeddings = tf.constant([[0.0, 0.0], [1.0, 0.0], [0.0, 1.5]])
      >>> float(semi_hard_triplet_loss(labels, embeddings))
      0.3486...
    """
    check_distance(distance_metric)
    labels, embeddings = check_batch(labels, embeddings)
    index = index_items(labels)
    precise = in_full_precision(embeddings)
    margin = tf.stop_gradient(margin_as(precise.dtype, margin))
    if callable(distance_metric):
        distances = tf.convert_to_tensor(distance_metric(precise))
        total = _total_over_distances(distances, index, margin)
    else:
        points = points_of(precise, distance_metric)
        total = _total_over_points(points, index, margin, distance_metric)
    pairs = tf.reduce_sum(tf.cast(index.end - index.start - 1, total.dtype))
    return tf.cast(tf.math.divide_no_nan(total, pairs), embeddings.dtype)


def index_items(labels: tf.Tensor) -> ItemIndex:
    """Returns where each item's pictures are.

    Args:
      labels: [batch], of any type that can be compared; strings are not for XLA.
    """
    if labels.dtype == tf.string:
        labels = tf.unique(labels).idx
    order = tf.argsort(labels, stable=True)
    ordered = tf.gather(labels, order)
    return ItemIndex(
        order,
        tf.searchsorted(ordered, labels, side="left"),
        tf.searchsorted(ordered, labels, side="right"),
    )


def _total_over_distances(distances: tf.Tensor, index: ItemIndex, margin: tf.Tensor) -> tf.Tensor:
    """Returns the sum over the pairs, differentiable by a matrix of distances [batch, batch]."""

    @tf.custom_gradient
    def total(distances: tf.Tensor) -> tuple:
        distances = tf.stop_gradient(distances)  # Eager TF would differentiate the search, too.
        pictures = tf.range(tf.shape(distances)[0])
        anchors = Anchors(pictures, tf.ones_like(pictures, tf.bool), distances)
        value, weights = mine(anchors, index, margin, None)
        return value, lambda upstream: upstream * weights

    return total(distances)


def _total_over_points(
    points: tf.Tensor, index: ItemIndex, margin: tf.Tensor, distance: str
) -> tf.Tensor:
    """Returns the sum over the pairs, differentiable by points [batch, dim]."""

    @tf.custom_gradient
    def total(points: tf.Tensor) -> tuple:
        points = tf.stop_gradient(points)  # Eager TF would differentiate the search, too.
        value, gradient = _mine_in_blocks(points, index, margin, distance)
        return value, lambda upstream: upstream * gradient

    return total(points)


def _mine_in_blocks(
    points: tf.Tensor, index: ItemIndex, margin: tf.Tensor, distance: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum over the pairs and its gradient by the points, a block of rows at a time."""
    batch, dim = _shape(points)
    if isinstance(batch, int):
        rows = max(1, min(batch, max(_BLOCK_SIZE // max(batch, 1), _LEAST_ROWS)))
    else:
        rows = tf.maximum(_BLOCK_SIZE // tf.maximum(batch, 1), _LEAST_ROWS)
        rows = tf.maximum(tf.minimum(rows, batch), 1)
    row_lengths, column_lengths = squared_lengths(points)
    # The column of ones makes matrix products that sum the strengths, too.
    extended = tf.concat([points, tf.ones_like(row_lengths)], axis=1)

    def block(number: tf.Tensor, value: tf.Tensor, pulls: tf.Tensor) -> tuple:
        # The last block may reach back into the one before it, but counts no anchor again.
        begin = tf.minimum(number * rows, batch - rows)
        pictures = begin + tf.range(rows)
        own = tf.slice(extended, [begin, 0], [rows, dim + 1])
        anchors = Anchors(
            pictures=pictures,
            counted=pictures >= number * rows,
            products=tf.matmul(own[:, :-1], points, transpose_b=True),
            own_lengths=tf.slice(row_lengths, [begin, 0], [rows, 1]),
            all_lengths=column_lengths,
        )
        block_value, strengths = mine(anchors, index, margin, distance)
        pulls += tf.matmul(strengths, own, transpose_a=True)
        pulls = tf.tensor_scatter_nd_add(
            pulls, pictures[:, tf.newaxis], tf.matmul(strengths, extended)
        )
        return number + 1, value + block_value, tf.ensure_shape(pulls, extended.shape)

    nothing = (0, tf.zeros([], points.dtype), tf.zeros_like(extended))
    if isinstance(batch, int) and rows == batch:
        _, value, pulls = block(*nothing)
    else:
        _, value, pulls = tf.while_loop(
            lambda number, *_: number * rows < batch,
            block,
            nothing,
            parallel_iterations=_BLOCKS_AT_ONCE,
        )
    to_others, strengths = pulls[:, :-1], pulls[:, -1:]
    if distance == "angular":
        return value, -to_others
    return value, strengths * points - to_others


def _shape(points: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Returns batch and dim, as numbers where they are known when a graph is made."""
    static, dynamic = points.shape, tf.shape(points)
    return tuple(dynamic[axis] if static[axis] is None else static[axis] for axis in (0, 1))
