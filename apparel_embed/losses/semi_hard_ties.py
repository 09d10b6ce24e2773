"""How the semi-hard triplet loss shares its gradient among pictures at equal distances.

TFA finds the nearest of an anchor's negatives beyond the positive as min((d - max d) * mask) +
max d, and the farthest of all negatives as max((d - min d) * mask) + min d. TensorFlow shares the
gradient of a minimum equally among all at which it is reached: here among all distances that are
equal after the subtraction, which rounding makes of some that were not. If the distance found is
the very one that was taken off, the minimum is 0 and reached at all pictures of the batch: the mask
lets only the negatives' shares pass, and the rest goes to all pictures at that distance.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from apparel_embed.losses.semi_hard_rows import (
    Anchors,
    ItemIndex,
    Pairs,
    Rows,
    add_at,
    farthest_negatives,
    make_rows,
    over_all_pairs,
    strengths_of,
    sum_where,
)

# Positives of an anchor looked at in one go: more take more memory, [rows, positives, batch].
_POSITIVES_AT_ONCE = 4


class _Sums(NamedTuple):
    """What the pairs looked at so far add up to.

    Attributes:
      weights: float [rows, batch], derivatives by the distances of the pairs not counted below, and
        by all distances to positives.
      at_greatest: float [rows, 1], pairs whose negative is beyond the positive and at the greatest
        distance of all pictures.
      inside: float [rows, 1], pairs whose negative is the farthest as none is beyond the positive.
    """

    weights: tf.Tensor
    at_greatest: tf.Tensor
    inside: tf.Tensor


def strengths_with_ties(
    anchors: Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tf.Tensor:
    """Returns some anchors' part of the gradient, whatever distances are equal.

    Args:
      anchors: the anchors and what tells their distances.
      index: where the items are.
      margin: scalar of the products' type.
      distance: a name in `DISTANCES`, or None if the anchors hold distances.

    Returns:
      float [rows, batch], strengths as in `pull_strengths` (or the derivatives by the distances,
      if no distance is named).
    """
    rows = make_rows(anchors, index, distance, folds=1)
    none = tf.zeros_like(rows.farthest)
    sums = over_all_pairs(
        rows,
        _POSITIVES_AT_ONCE,
        index,
        margin,
        lambda sums, pairs: _add_pairs(sums, pairs, rows),
        _Sums(tf.zeros_like(rows.distances), none, none),
    )
    weights = sums.weights - sums.at_greatest * _shares_at_end(rows, rows.greatest)
    farthest = tf.cast(farthest_negatives(rows), weights.dtype)
    even = tf.math.divide_no_nan(farthest, tf.reduce_sum(farthest, axis=1, keepdims=True))
    is_smallest = rows.farthest == rows.smallest
    weights -= sums.inside * tf.where(is_smallest, _shares_at_end(rows, rows.smallest), even)
    return strengths_of(weights, rows.distances, anchors, distance)


def _add_pairs(sums: _Sums, pairs: Pairs, rows: Rows) -> _Sums:
    """Returns the sums with those of some pairs."""
    zero = tf.zeros([], pairs.active.dtype)
    outside = tf.where(pairs.is_outside, pairs.active, zero)
    is_greatest = pairs.to_negative == rows.greatest
    shared = tf.where(is_greatest, zero, outside)
    weights = add_at(sums.weights, pairs.positives, pairs.active)
    key = pairs.to_negative - rows.greatest
    chosen = rows.keys[:, tf.newaxis] == key[:, :, tf.newaxis]
    chosen &= rows.negatives[:, tf.newaxis] > pairs.to_positive[:, :, tf.newaxis]
    chosen = tf.cast(chosen, zero.dtype)
    share = tf.math.divide_no_nan(shared, tf.reduce_sum(chosen, axis=2))
    return _Sums(
        weights=weights - tf.linalg.matvec(chosen, share, transpose_a=True),
        at_greatest=sums.at_greatest + sum_where(is_greatest, outside),
        inside=sums.inside + sum_where(~pairs.is_outside, pairs.active),
    )


def _shares_at_end(rows: Rows, end: tf.Tensor) -> tf.Tensor:
    """Returns the shares [rows, batch] where the distance found was the one taken off.

    Args:
      rows: the anchors.
      end: float [rows, 1], this distance: the smallest or greatest of its row.
    """
    batch = tf.cast(tf.shape(rows.distances)[1], end.dtype)
    passed = tf.where(rows.negatives == end, 1.0 / batch, 0.0)
    there = tf.cast(rows.distances == end, end.dtype)
    rest = 1.0 - tf.reduce_sum(passed, axis=1, keepdims=True)
    return passed + rest * there / tf.reduce_sum(there, axis=1, keepdims=True)
