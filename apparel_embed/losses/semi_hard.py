"""The semi-hard triplet loss in memory that grows no faster than the batch squared.

TensorFlow Addons compares every positive pair with every image at once, in a tensor of B * B * B
numbers. This module processes anchors in blocks of rows, and the positives of a block's anchors a
few at a time: the nearest negative beyond each positive is a minimum over a row. It never holds
more than some blocks of B-wide rows, and computes the gradient in the same pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from apparel_embed.losses.distances import (
    Distance,
    check_batch,
    check_distance,
    distances_from_products,
    in_full_precision,
    margin_as,
    pair_gradient_weights,
    points_of,
    squared_lengths,
)

# Numbers in a block of rows (at least _LEAST_ROWS of them); about ten such arrays are held.
_BLOCK_SIZE = 2**18
_LEAST_ROWS = 128
# Blocks processed in parallel: compiled code keeps one core busy, and part of another.
_BLOCKS_AT_ONCE = 2
# Positives of an anchor processed per iteration: more would unroll more code for small items.
_POSITIVES_AT_ONCE = 11
# Parts that a row is folded into and reduced element by element: compilers vectorise that, but not
# a minimum along a row. More parts are faster, but unroll more code.
_FOLDS = 16


class ItemIndex(NamedTuple):
    """The positions of each item's images in a batch.

    Attributes:
      order: int32 [batch], images sorted by item.
      start, end: int32 [batch], where each image's item starts and ends in `order`.
    """

    order: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor


class _Anchors(NamedTuple):
    """Some of the batch's images as anchors, with their products or distances to all images.

    Attributes:
      images: int32 [rows], the anchors.
      counted: bool [rows], false for anchors that an earlier block has counted.
      products: float [rows, batch], scalar products of their points with those of all images; or
        their distances, for a custom distance.
      own_lengths, all_lengths: float [rows, 1] and [1, batch], squared lengths of the anchors'
        points and of all points, or None.
    """

    images: tf.Tensor
    counted: tf.Tensor
    products: tf.Tensor
    own_lengths: tf.Tensor | None = None
    all_lengths: tf.Tensor | None = None


@tf.autograph.experimental.do_not_convert  # Nothing needs converting; skipping it saves time.
def semi_hard_triplet_loss(
    labels: tf.Tensor,
    embeddings: tf.Tensor,
    margin: float | tf.Tensor = 1.0,
    distance_metric: Distance = "L2",
) -> tf.Tensor:
    """Returns the triplet loss with semi-hard negatives, as TensorFlow Addons defines it.

    Every ordered pair (a, p) of images of an item is matched with the negative n of smallest
    d(a, n) > d(a, p), or with the farthest negative if there is none. The loss is the mean over the
    pairs of max(0, margin + d(a, p) - d(a, n)) (Schroff et al. 2015, "FaceNet"). Negatives at the
    same distance share the gradient equally. Supports first derivatives only.

    Args:
      labels: [batch] or [batch, 1], item of each image: integers, strings, or (not under XLA)
        floating-point numbers that are whole and not rounded (below 2**24 in float32).
      embeddings: float [batch, dim]; float16 and bfloat16 are computed in float32.
      margin: how much farther a negative should be than a positive.
      distance_metric: a name in `DISTANCES`, or a function from embeddings [batch, dim] to
        distances [batch, batch].

    Returns:
      A scalar with the dtype of the embeddings; 0, with gradient 0, for a batch without positives.

    Raises:
      ValueError: if shapes or dtypes are not as above, or the distance is unknown.

    Examples:
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
        searched = tf.convert_to_tensor(distance_metric(precise))
        search = functools.partial(_mine_distances, index=index, margin=margin)
    else:
        searched = points_of(precise, distance_metric)
        search = functools.partial(
            _mine_in_blocks, index=index, margin=margin, distance=distance_metric
        )

    @tf.custom_gradient
    def total(searched: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        # Without stop_gradient, eager TensorFlow would also differentiate the search.
        value, gradient = search(tf.stop_gradient(searched))
        return value, lambda upstream: upstream * gradient

    pairs = tf.reduce_sum(tf.cast(index.end - index.start - 1, precise.dtype))
    return tf.cast(tf.math.divide_no_nan(total(searched), pairs), embeddings.dtype)


def index_items(labels: tf.Tensor) -> ItemIndex:
    """Returns the positions of each item's images.

    Args:
      labels: [batch], of any comparable type; strings do not work under XLA.
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


def _mine_distances(
    distances: tf.Tensor, index: ItemIndex, margin: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum over the pairs and its gradient w.r.t. the distances [batch, batch]."""
    images = tf.range(tf.shape(distances)[0])
    return _mine(_Anchors(images, tf.ones_like(images, tf.bool), distances), index, margin, None)


def _mine_in_blocks(
    points: tf.Tensor, index: ItemIndex, margin: tf.Tensor, distance: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum over the pairs and its gradient w.r.t. the points, block by block."""
    batch, dim = _shape(points)
    if isinstance(batch, int):
        rows = max(1, min(batch, max(_BLOCK_SIZE // max(batch, 1), _LEAST_ROWS)))
    else:
        rows = tf.maximum(_BLOCK_SIZE // tf.maximum(batch, 1), _LEAST_ROWS)
        rows = tf.maximum(tf.minimum(rows, batch), 1)
    row_lengths, column_lengths = squared_lengths(points)
    # With the column of ones, matrix products also sum the weights.
    extended = tf.concat([points, tf.ones_like(row_lengths)], axis=1)

    def block(number: tf.Tensor, value: tf.Tensor, sums: tf.Tensor) -> tuple:
        # The last block may overlap the previous one, but counts no anchor twice.
        begin = tf.minimum(number * rows, batch - rows)
        images = begin + tf.range(rows)
        own = tf.slice(extended, [begin, 0], [rows, dim + 1])
        anchors = _Anchors(
            images=images,
            counted=images >= number * rows,
            products=tf.matmul(own[:, :-1], points, transpose_b=True),
            own_lengths=tf.slice(row_lengths, [begin, 0], [rows, 1]),
            all_lengths=column_lengths,
        )
        block_value, weights = _mine(anchors, index, margin, distance)
        sums += tf.matmul(weights, own, transpose_a=True)
        sums = tf.tensor_scatter_nd_add(sums, images[:, tf.newaxis], tf.matmul(weights, extended))
        return number + 1, value + block_value, tf.ensure_shape(sums, extended.shape)

    nothing = (0, tf.zeros([], points.dtype), tf.zeros_like(extended))
    if isinstance(batch, int) and rows == batch:
        _, value, sums = block(*nothing)
    else:
        _, value, sums = tf.while_loop(
            lambda number, *_: number * rows < batch,
            block,
            nothing,
            parallel_iterations=_BLOCKS_AT_ONCE,
        )
    to_others, totals = sums[:, :-1], sums[:, -1:]
    if distance == "angular":
        return value, -to_others
    return value, totals * points - to_others


def _shape(points: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Returns batch and dim, as numbers if they are known statically."""
    static, dynamic = points.shape, tf.shape(points)
    return tuple(dynamic[axis] if static[axis] is None else static[axis] for axis in (0, 1))


def _mine(
    anchors: _Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum over some anchors' pairs, and their part of its gradient.

    The gradient is weights [rows, batch] as in `pair_gradient_weights`; or, without a named
    distance, the derivatives w.r.t. the distances that the anchors hold.
    """
    # XLA for GPUs needs libraries that many installations lack. Users can enable it there with
    # jit_compile on the training step.
    compiled = not tf.config.list_physical_devices("GPU")
    return (_search_compiled if compiled else _search)(anchors, index, margin, distance)


def _search(
    anchors: _Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Does the expensive part of `_mine`, with the same arguments and results."""
    distances, smallest = _distances_of(anchors, distance)
    images = anchors.images[:, tf.newaxis]
    start = tf.gather(index.start, images)
    end = tf.where(anchors.counted[:, tf.newaxis], tf.gather(index.end, images), 0)
    nowhere = tf.constant(float("-inf"), distances.dtype)
    negatives = tf.where(start != index.start, distances, nowhere)
    folded = _fold(negatives)
    greatest, farthest = _greatest(_fold(distances)), _greatest(folded)
    # Without negatives TFA uses the nearest of all images.
    far = tf.where(farthest > nowhere, negatives, distances)
    farthest = tf.where(farthest > nowhere, farthest, smallest)
    zero = tf.zeros([], margin.dtype)

    def add_pairs(rank: tf.Tensor, value: tf.Tensor, weights: tf.Tensor, inside: tf.Tensor) -> list:
        """Adds the pairs of the next few positives, from a rank on.

        Updates the value, its derivatives w.r.t. the distances, and the number of pairs inside.
        Those have no negative beyond the positive; their derivatives are added after the loop.
        """
        ranks = start + rank + tf.range(_POSITIVES_AT_ONCE)
        positives = tf.gather(index.order, tf.minimum(ranks, tf.shape(distances)[1] - 1))
        valid = (ranks < end) & (positives != images)
        to_positive = tf.gather(distances, positives, batch_dims=1)
        outside = _next_greater(folded, to_positive)
        is_outside = outside < float("inf")
        to_negative = tf.where(is_outside, outside, farthest)
        # Subtracted and added back as TFA does: the rounding decides pairs at the margin.
        taken_off = tf.where(is_outside, greatest, smallest)
        violation = margin + (to_positive - ((to_negative - taken_off) + taken_off))
        # Written so that NaN stays NaN and is noticed.
        hinge = tf.where(violation < 0, zero, violation)
        # TFA has a gradient at 0 as well.
        active = tf.cast(valid & (violation >= 0), margin.dtype)
        rows = tf.range(tf.shape(positives)[0])[:, tf.newaxis] + tf.zeros_like(positives)
        weights = tf.tensor_scatter_nd_add(weights, tf.stack([rows, positives], axis=-1), active)
        # TFA compares distances minus the greatest one: rounding makes some of them equal.
        key = to_negative - greatest
        count = _count(folded - greatest[:, :, tf.newaxis], key)
        share = tf.math.divide_no_nan(tf.where(is_outside, active, zero), count)
        for i in range(_POSITIVES_AT_ONCE):
            one = slice(i, i + 1)
            weights -= tf.where(negatives - greatest == key[:, one], share[:, one], zero)
        value += tf.reduce_sum(tf.where(valid, hinge, zero))
        inside += _sum_where(~is_outside, active)
        return [rank + _POSITIVES_AT_ONCE, value, weights, inside]

    most = tf.reduce_max(end - start)
    nothing = (0, zero, tf.zeros_like(distances), tf.zeros_like(farthest))
    _, value, weights, inside = tf.while_loop(lambda rank, *_: rank < most, add_pairs, nothing)
    number = _sum_where(far == farthest, tf.ones_like(distances))
    weights -= tf.where(far == farthest, tf.math.divide_no_nan(inside, number), 0.0)
    if distance is None:
        return value, weights
    return value, pair_gradient_weights(weights, distances, anchors.products, distance)


_search_compiled = tf.function(_search, jit_compile=True, reduce_retracing=True, autograph=False)


def _distances_of(anchors: _Anchors, distance: str | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the distances [rows, batch] of all images, and the smallest [rows, 1] of each row."""
    if distance is None:
        return anchors.products, tf.reduce_min(anchors.products, axis=1, keepdims=True)
    same = anchors.images[:, tf.newaxis] == tf.range(tf.shape(anchors.products)[1])
    distances = distances_from_products(
        anchors.products, anchors.own_lengths, anchors.all_lengths, same, distance
    )
    if distance == "angular":
        return distances, tf.reduce_min(distances, axis=1, keepdims=True)
    # The smallest distance is that of the anchor to itself.
    return distances, tf.zeros_like(anchors.own_lengths)


def _sum_where(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the sums [rows, 1] of the values [rows, n] where a mask is true."""
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1, keepdims=True)


def _fold(rows: tf.Tensor) -> tf.Tensor:
    """Returns rows [rows, batch] as [rows, folds, ...], padded with -infinity."""
    count, batch = tf.shape(rows)[0], tf.shape(rows)[1]
    missing = -batch % _FOLDS
    filled = tf.pad(rows, [[0, 0], [0, missing]], constant_values=-float("inf"))
    return tf.reshape(filled, [count, _FOLDS, (batch + missing) // _FOLDS])


def _greatest(folded: tf.Tensor) -> tf.Tensor:
    """Returns the greatest value [rows, 1] of each row."""
    greatest = functools.reduce(tf.maximum, tf.unstack(folded, _FOLDS, axis=1))
    return tf.reduce_max(greatest, axis=1, keepdims=True)


def _next_greater(folded: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """Returns the smallest value above each threshold [rows, n] in its row, or infinity."""
    thresholds = thresholds[:, :, tf.newaxis]
    nowhere = tf.constant(float("inf"), folded.dtype)
    greater = (
        tf.where(part > thresholds, part, nowhere)
        for part in tf.unstack(folded[:, tf.newaxis], _FOLDS, axis=2)
    )
    return tf.reduce_min(functools.reduce(tf.minimum, greater), axis=2)


def _count(folded: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns how often each of the values [rows, n] occurs in its row, as floats."""
    values = values[:, :, tf.newaxis]
    equal = (
        tf.cast(part == values, values.dtype)
        for part in tf.unstack(folded[:, tf.newaxis], _FOLDS, axis=2)
    )
    return tf.reduce_sum(functools.reduce(tf.add, equal), axis=2)
