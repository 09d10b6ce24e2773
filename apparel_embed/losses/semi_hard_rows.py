"""What some anchors add to the semi-hard triplet loss and to its gradient.

The part that takes the time, written for XLA, which fuses the many passes over the rows into few
and holds little between them. It also runs as it is, slower by half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from apparel_embed.losses.distances import distances_from_products, pull_strengths

# Positives of an anchor looked at in one go: more make longer code for batches of small items.
_POSITIVES_AT_ONCE = 16
# Parts a row is folded into, element by element, before it is reduced.
_FOLDS = 16


class ItemIndex(NamedTuple):
    """Where the pictures of each item are in a batch.

    Attributes:
      order: int32 [batch], pictures sorted by item.
      start: int32 [batch], for each picture where its item's first one is in `order`.
      end: int32 [batch], for each picture one past where its item's last one is in `order`.
    """

    order: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor


class Anchors(NamedTuple):
    """Some of the batch's pictures as anchors, and what tells how far all pictures are from them.

    Attributes:
      pictures: int32 [rows], the anchors.
      counted: bool [rows], false for anchors that add nothing.
      products: float [rows, batch], scalar products of their points with those of all pictures;
        or their distances, if no distance is named.
      own_lengths: float [rows, 1], squared lengths of their points, or None.
      all_lengths: float [1, batch], squared lengths of all points, or None.
    """

    pictures: tf.Tensor
    counted: tf.Tensor
    products: tf.Tensor
    own_lengths: tf.Tensor | None = None
    all_lengths: tf.Tensor | None = None


class _Rows(NamedTuple):
    """What is known of the anchors [rows] before a positive is looked at.

    Attributes:
      anchors: int32 [rows, 1].
      start: int32 [rows, 1], where the anchors' positives begin in the index.
      end: int32 [rows, 1], where they end; 0 for anchors that do not count.
      distances: float [rows, batch].
      negatives: float [rows, batch], the distances where they are negatives', else -infinity.
      folded: float [rows, _FOLDS, ...], the same folded.
      farthest: float [rows, 1], distance of the farthest negative.
      nearest: float [rows, 1], smallest distance of all pictures.
    """

    anchors: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    distances: tf.Tensor
    negatives: tf.Tensor
    folded: tf.Tensor
    farthest: tf.Tensor
    nearest: tf.Tensor


class _Sums(NamedTuple):
    """What the positives looked at so far add up to.

    Attributes:
      value: scalar, sum over the pairs.
      weights: float [rows, batch], derivatives of the value by the distances.
      at_farthest: float [rows, 1], pairs whose negative, found as a minimum, is the farthest.
      at_nearest: float [rows, 1], pairs whose negative, found as a maximum, is the nearest.
      as_far: bool scalar, whether a picture of an anchor's item is as far as its farthest negative.
    """

    value: tf.Tensor
    weights: tf.Tensor
    at_farthest: tf.Tensor
    at_nearest: tf.Tensor
    as_far: tf.Tensor


class _Ends(NamedTuple):
    """The pairs whose negative lies at an end of its row.

    Attributes:
      distances: float [rows, batch].
      negatives: float [rows, batch], the distances where they are negatives', else -infinity.
      farthest: float [rows, 1], distance of the farthest negative.
      nearest: float [rows, 1], smallest distance of all pictures.
      at_farthest: float [rows, 1], pairs whose negative, found as a minimum, is the farthest.
      at_nearest: float [rows, 1], pairs whose negative, found as a maximum, is the nearest.
    """

    distances: tf.Tensor
    negatives: tf.Tensor
    farthest: tf.Tensor
    nearest: tf.Tensor
    at_farthest: tf.Tensor
    at_nearest: tf.Tensor


def mine(
    anchors: Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what some anchors add to the loss, and their part of its gradient.

    Args:
      anchors: the anchors and what tells their distances.
      index: where the items are.
      margin: scalar of the products' type.
      distance: a name in `DISTANCES`, or None if the anchors hold distances.

    Returns:
      The sum over the anchors' pairs, and float [rows, batch], strengths as in `pull_strengths`
      (or the derivatives by the distances, if no distance is named).
    """
    # XLA for GPUs needs libraries that many installations lack: there it is for the user to ask,
    # with jit_compile on the training step.
    processors_only = not tf.config.list_physical_devices("GPU")
    look = _look_at_rows_compiled if processors_only else _look_at_rows
    value, strengths, ends, tied = look(anchors, index, margin, distance)

    def with_ties() -> tf.Tensor:
        return strengths + _strengths(_share_at_ends(ends), ends.distances, anchors, distance)

    # Rare, and outside of the compiled code, which is the smaller for it.
    return value, tf.cond(tied, with_ties, lambda: strengths)


def _look_at_rows(
    anchors: Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tuple[tf.Tensor, tf.Tensor, _Ends, tf.Tensor]:
    """Returns value and strengths, and what to mend the latter with if the last result is true."""
    rows = _make_rows(anchors, index, distance)
    none = tf.zeros_like(rows.farthest)
    nothing = _Sums(
        tf.zeros([], margin.dtype), tf.zeros_like(rows.distances), none, none, tf.constant(False)
    )
    most = tf.reduce_max(rows.end - rows.start)
    _, sums = tf.while_loop(
        lambda rank, _: rank < most,
        lambda rank, sums: (rank + _POSITIVES_AT_ONCE, _add_pairs(sums, rank, rows, index, margin)),
        (0, nothing),
    )
    ends = _Ends(
        rows.distances,
        rows.negatives,
        rows.farthest,
        rows.nearest,
        sums.at_farthest,
        sums.at_nearest,
    )
    to_self = tf.gather(rows.distances, rows.anchors, batch_dims=1)
    tied = sums.as_far | tf.reduce_any(to_self == rows.farthest)
    tied |= tf.reduce_any(sums.at_nearest * rows.nearest != 0)
    return sums.value, _strengths(sums.weights, rows.distances, anchors, distance), ends, tied


_look_at_rows_compiled = tf.function(
    _look_at_rows, jit_compile=True, reduce_retracing=True, autograph=False
)


def _strengths(
    weights: tf.Tensor, distances: tf.Tensor, anchors: Anchors, distance: str | None
) -> tf.Tensor:
    if distance is None:
        return weights
    return pull_strengths(weights, distances, anchors.products, distance)


def _make_rows(anchors: Anchors, index: ItemIndex, distance: str | None) -> _Rows:
    pictures = anchors.pictures[:, tf.newaxis]
    distances = anchors.products
    if distance is not None:
        same = pictures == tf.range(tf.shape(distances)[1])
        distances = distances_from_products(
            distances, anchors.own_lengths, anchors.all_lengths, same, distance
        )
    nowhere = tf.constant(float("-inf"), distances.dtype)
    start = tf.gather(index.start, pictures)
    negatives = tf.where(start != index.start, distances, nowhere)
    folded = _fold(negatives, nowhere)
    farthest = _reduce_folded(folded, tf.maximum, tf.reduce_max)
    if distance in ("L2", "squared-L2"):
        nearest = tf.zeros_like(farthest)
    else:
        nearest = tf.reduce_min(distances, axis=1, keepdims=True)
    return _Rows(
        anchors=pictures,
        start=start,
        end=tf.where(anchors.counted[:, tf.newaxis], tf.gather(index.end, pictures), 0),
        distances=distances,
        negatives=negatives,
        folded=folded,
        # TFA's answer for an anchor without negatives.
        farthest=tf.where(farthest == nowhere, nearest, farthest),
        nearest=nearest,
    )


def _add_pairs(
    sums: _Sums, rank: tf.Tensor, rows: _Rows, index: ItemIndex, margin: tf.Tensor
) -> _Sums:
    """Returns the sums with those of the next few positives of each anchor."""
    zero = tf.zeros([], margin.dtype)
    ranks = rows.start + rank + tf.range(_POSITIVES_AT_ONCE)
    positives = tf.gather(index.order, tf.minimum(ranks, tf.shape(rows.distances)[1] - 1))
    valid = (ranks < rows.end) & (positives != rows.anchors)
    to_positive = tf.gather(rows.distances, positives, batch_dims=1)
    outside = _next_greater(rows.folded, to_positive)
    is_outside = outside < float("inf")
    to_negative = tf.where(is_outside, outside, rows.farthest)
    violation = margin + (to_positive - to_negative)
    # Written so that NaN stays NaN and is noticed.
    hinge = tf.where(violation < 0, zero, violation)
    # At 0, too, TFA has a gradient.
    active = tf.cast(valid & (violation >= 0), margin.dtype)
    share = tf.math.divide_no_nan(active, _count_equal(rows.folded, to_negative))
    weights = _add_at(sums.weights, positives, active)
    for i in range(_POSITIVES_AT_ONCE):
        chosen = rows.negatives == to_negative[:, i : i + 1]
        weights -= tf.where(chosen, share[:, i : i + 1], zero)
    as_far = tf.reduce_any(valid & (to_positive == rows.farthest))
    return _Sums(
        value=sums.value + tf.reduce_sum(tf.where(valid, hinge, zero)),
        weights=weights,
        at_farthest=sums.at_farthest
        + _sum_where(is_outside & (to_negative == rows.farthest), active),
        at_nearest=sums.at_nearest
        + _sum_where(~is_outside & (to_negative == rows.nearest), active),
        as_far=sums.as_far | as_far,
    )


def _share_at_ends(ends: _Ends) -> tf.Tensor:
    """Returns by how much TFA's weights [rows, batch] differ for negatives at an end of their row.

    TFA finds a masked minimum as min((d - max d) * mask) + max d, and a masked maximum likewise
    from min d. If the distance found is the very one that was taken off, all products are 0: a
    part of the gradient goes, in equal shares, to all pictures of the batch, of which the mask
    lets those of the negatives pass, and the rest to all pictures at that distance.
    """
    ones = tf.ones_like(ends.distances)
    batch = tf.cast(tf.shape(ones)[1], ones.dtype)
    is_greatest = ends.farthest == tf.reduce_max(ends.distances, axis=1, keepdims=True)
    at_greatest = tf.where(is_greatest, ends.at_farthest, 0.0)
    change = tf.zeros_like(ends.distances)
    for end, weight in ((ends.farthest, at_greatest), (ends.nearest, ends.at_nearest)):
        all_there, negatives_there = ends.distances == end, ends.negatives == end
        count = _sum_where(negatives_there, ones)
        rest = tf.math.divide_no_nan(1.0 - count / batch, _sum_where(all_there, ones))
        instead = 1.0 / batch + rest - tf.math.divide_no_nan(tf.ones_like(count), count)
        change -= tf.where(negatives_there, weight * instead, 0.0)
        change -= tf.where(all_there & ~negatives_there, weight * rest, 0.0)
    return change


def _sum_where(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the sums [rows, 1] of the values [rows, n] where a mask is true."""
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1, keepdims=True)


def _add_at(rows: tf.Tensor, columns: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns rows [rows, batch] with values [rows, n] added at columns [rows, n]."""
    numbers = tf.range(tf.shape(rows)[0])[:, tf.newaxis] + tf.zeros_like(columns)
    return tf.tensor_scatter_nd_add(rows, tf.stack([numbers, columns], axis=-1), values)


def _fold(rows: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Returns rows [rows, batch] as [rows, _FOLDS, ...], filled up where they fall short.

    Compilers vectorise what is done to many parts of a row, element by element, but not a minimum
    along it; of a folded row little is left for the latter.
    """
    count, batch = tf.shape(rows)[0], tf.shape(rows)[1]
    missing = -batch % _FOLDS
    filled = tf.pad(rows, [[0, 0], [0, missing]], constant_values=fill)
    return tf.reshape(filled, [count, _FOLDS, (batch + missing) // _FOLDS])


def _reduce_folded(folded: tf.Tensor, combine: Callable, reduce: Callable) -> tf.Tensor:
    """Returns [rows, 1], each row's parts combined element by element and then reduced."""
    result = folded[:, 0]
    for part in range(1, _FOLDS):
        result = combine(result, folded[:, part])
    return reduce(result, axis=1, keepdims=True)


def _next_greater(folded: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """Returns for each of the thresholds [rows, n] its row's next greater value, or infinity."""
    thresholds = thresholds[:, :, tf.newaxis]
    nowhere = tf.constant(float("inf"), folded.dtype)
    next_greater = nowhere
    for part in range(_FOLDS):
        values = folded[:, tf.newaxis, part]
        next_greater = tf.minimum(next_greater, tf.where(values > thresholds, values, nowhere))
    return tf.reduce_min(next_greater, axis=2)


def _count_equal(folded: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns for each of a row's values [rows, n] how many times the row holds it, as floats."""
    values = values[:, :, tf.newaxis]
    one, count = tf.ones([], folded.dtype), tf.zeros([], folded.dtype)
    for part in range(_FOLDS):
        count += tf.where(folded[:, tf.newaxis, part] == values, one, 0.0)
    return tf.reduce_sum(count, axis=2)
