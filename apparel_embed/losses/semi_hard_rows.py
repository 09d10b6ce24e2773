"""Anchors as rows of distances, and the search along them for the negatives of their pairs.

Written for XLA, which fuses the many passes over the rows into few and holds little between them.
It also runs as it is, slower by half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import tensorflow as tf

from apparel_embed.losses.distances import distances_from_products, pull_strengths

_Sums = TypeVar("_Sums", bound=tuple)


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


class Rows(NamedTuple):
    """What is known of anchors before a positive is looked at.

    Attributes:
      anchors: int32 [rows, 1].
      start: int32 [rows, 1], where the anchors' positives begin in the index.
      end: int32 [rows, 1], where they end; 0 for anchors that do not count.
      distances: float [rows, batch].
      negatives: float [rows, batch], the distances where they are negatives', else -infinity.
      folded: float [rows, folds, ...], the same folded.
      farthest: float [rows, 1], distance of the farthest negative; if there is none, the smallest
        distance of all pictures, which is TFA's answer then.
      smallest: float [rows, 1], smallest distance of all pictures.
      greatest: float [rows, 1], greatest distance of all pictures.
      keys: float [rows, batch], the negatives' distances less the greatest one: TFA compares these,
        and rounding makes some of them equal that were not.
      folded_keys: float [rows, folds, ...], the same folded.
      has_negatives: bool [rows, 1].
    """

    anchors: tf.Tensor
    start: tf.Tensor
    end: tf.Tensor
    distances: tf.Tensor
    negatives: tf.Tensor
    folded: tf.Tensor
    farthest: tf.Tensor
    smallest: tf.Tensor
    greatest: tf.Tensor
    keys: tf.Tensor
    folded_keys: tf.Tensor
    has_negatives: tf.Tensor


class Pairs(NamedTuple):
    """A few pairs of each anchor and a positive, each with its negative.

    Attributes:
      positives: int32 [rows, n], the pictures.
      valid: bool [rows, n], false where an anchor has no further positive.
      to_positive: float [rows, n], distances.
      is_outside: bool [rows, n], whether a negative is farther than the positive.
      to_negative: float [rows, n], distance of the nearest of these, else of the farthest negative.
      violation: float [rows, n], what the pair adds to the loss where it is above 0.
      active: float [rows, n], 1 where the pair has a gradient, else 0.
    """

    positives: tf.Tensor
    valid: tf.Tensor
    to_positive: tf.Tensor
    is_outside: tf.Tensor
    to_negative: tf.Tensor
    violation: tf.Tensor
    active: tf.Tensor


def make_rows(anchors: Anchors, index: ItemIndex, distance: str | None, folds: int) -> Rows:
    """Returns the rows of some anchors.

    Args:
      anchors: the anchors and what tells their distances.
      index: where the items are.
      distance: a name in `DISTANCES`, or None if the anchors hold distances.
      folds: parts a row is folded into, which are reduced element by element; as compilers
        vectorise that, but not a minimum along a row, more are faster but longer code.
    """
    pictures = anchors.pictures[:, tf.newaxis]
    distances = anchors.products
    if distance is not None:
        same = pictures == tf.range(tf.shape(distances)[1])
        distances = distances_from_products(
            distances, anchors.own_lengths, anchors.all_lengths, same, distance
        )
    if distance in ("L2", "squared-L2"):  # The smallest is the anchor's distance to itself.
        smallest = tf.zeros_like(anchors.own_lengths)
    else:
        smallest = tf.reduce_min(distances, axis=1, keepdims=True)
    nowhere = tf.constant(float("-inf"), distances.dtype)
    greatest = _reduce_folded(_fold(distances, nowhere, folds), tf.maximum, tf.reduce_max)
    start = tf.gather(index.start, pictures)
    negatives = tf.where(start != index.start, distances, nowhere)
    folded = _fold(negatives, nowhere, folds)
    farthest = _reduce_folded(folded, tf.maximum, tf.reduce_max)
    keys = negatives - greatest
    return Rows(
        anchors=pictures,
        start=start,
        end=tf.where(anchors.counted[:, tf.newaxis], tf.gather(index.end, pictures), 0),
        distances=distances,
        negatives=negatives,
        folded=folded,
        farthest=tf.where(farthest > nowhere, farthest, smallest),
        smallest=smallest,
        greatest=greatest,
        keys=keys,
        folded_keys=_fold(keys, nowhere, folds),
        has_negatives=farthest > nowhere,
    )


def find_pairs(
    rows: Rows, rank: tf.Tensor, at_once: int, index: ItemIndex, margin: tf.Tensor
) -> Pairs:
    """Returns the pairs of all anchors with the next few of their positives.

    Args:
      rows: the anchors.
      rank: int32 scalar, number of the first of these positives among those of its item.
      at_once: how many.
      index: where the items are.
      margin: scalar of the distances' type.
    """
    ranks = rows.start + rank + tf.range(at_once)
    positives = tf.gather(index.order, tf.minimum(ranks, tf.shape(rows.distances)[1] - 1))
    valid = (ranks < rows.end) & (positives != rows.anchors)
    to_positive = tf.gather(rows.distances, positives, batch_dims=1)
    outside = _next_greater(rows.folded, to_positive)
    is_outside = outside < float("inf")
    to_negative = tf.where(is_outside, outside, rows.farthest)
    # Taken off and added again as TFA does, whose rounding decides about pairs at the margin.
    taken_off = tf.where(is_outside, rows.greatest, rows.smallest)
    violation = margin + (to_positive - ((to_negative - taken_off) + taken_off))
    # At 0, too, TFA has a gradient.
    active = tf.cast(valid & (violation >= 0), margin.dtype)
    return Pairs(positives, valid, to_positive, is_outside, to_negative, violation, active)


def over_all_pairs(
    rows: Rows,
    at_once: int,
    index: ItemIndex,
    margin: tf.Tensor,
    add: Callable[[_Sums, Pairs], _Sums],
    nothing: _Sums,
) -> _Sums:
    """Returns the sums of all pairs of some anchors.

    Args:
      rows: the anchors.
      at_once: positives of an anchor looked at in one go.
      index: where the items are.
      margin: scalar of the distances' type.
      add: from sums and `Pairs` to the sums with these pairs.
      nothing: the sums without a pair, a (named) tuple of tensors.
    """
    most = tf.reduce_max(rows.end - rows.start)
    _, sums = tf.while_loop(
        lambda rank, _: rank < most,
        lambda rank, sums: (
            rank + at_once,
            add(sums, find_pairs(rows, rank, at_once, index, margin)),
        ),
        (0, nothing),
    )
    return sums


def farthest_negatives(rows: Rows) -> tf.Tensor:
    """Returns bool [rows, batch], the negatives that TFA finds farthest: see `Rows.keys`."""
    return rows.negatives - rows.smallest == rows.farthest - rows.smallest


def strengths_of(
    weights: tf.Tensor, distances: tf.Tensor, anchors: Anchors, distance: str | None
) -> tf.Tensor:
    """Returns `pull_strengths` of weights by distances; or the weights, if no distance is named."""
    if distance is None:
        return weights
    return pull_strengths(weights, distances, anchors.products, distance)


def add_at(rows: tf.Tensor, columns: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns rows [rows, batch] with values [rows, n] added at columns [rows, n]."""
    numbers = tf.range(tf.shape(rows)[0])[:, tf.newaxis] + tf.zeros_like(columns)
    return tf.tensor_scatter_nd_add(rows, tf.stack([numbers, columns], axis=-1), values)


def sum_where(mask: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns the sums [rows, 1] of the values [rows, n] where a mask is true."""
    return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1, keepdims=True)


def count_keys(rows: Rows, keys: tf.Tensor) -> tf.Tensor:
    """Returns for each of the keys [rows, n] how many negatives have it, as floats."""
    keys = keys[:, :, tf.newaxis]
    one, count = tf.ones([], keys.dtype), tf.zeros([], keys.dtype)
    for part in range(rows.folded_keys.shape[1]):
        count += tf.where(rows.folded_keys[:, tf.newaxis, part] == keys, one, 0.0)
    return tf.reduce_sum(count, axis=2)


def _fold(rows: tf.Tensor, fill: tf.Tensor, folds: int) -> tf.Tensor:
    """Returns rows [rows, batch] as [rows, folds, ...], filled up where they fall short."""
    count, batch = tf.shape(rows)[0], tf.shape(rows)[1]
    missing = -batch % folds
    filled = tf.pad(rows, [[0, 0], [0, missing]], constant_values=fill)
    return tf.reshape(filled, [count, folds, (batch + missing) // folds])


def _reduce_folded(folded: tf.Tensor, combine: Callable, reduce: Callable) -> tf.Tensor:
    """Returns [rows, 1], each row's parts combined element by element and then reduced."""
    result = folded[:, 0]
    for part in range(1, folded.shape[1]):
        result = combine(result, folded[:, part])
    return reduce(result, axis=1, keepdims=True)


def _next_greater(folded: tf.Tensor, thresholds: tf.Tensor) -> tf.Tensor:
    """Returns for each of the thresholds [rows, n] its row's next greater value, or infinity."""
    thresholds = thresholds[:, :, tf.newaxis]
    nowhere = tf.constant(float("inf"), folded.dtype)
    next_greater = nowhere
    for part in range(folded.shape[1]):
        values = folded[:, tf.newaxis, part]
        next_greater = tf.minimum(next_greater, tf.where(values > thresholds, values, nowhere))
    return tf.reduce_min(next_greater, axis=2)
