"""What some anchors add to the semi-hard triplet loss and to its gradient: what takes the time."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from apparel_embed.losses.semi_hard_rows import (
    POSITIVES_AT_ONCE,
    Anchors,
    ItemIndex,
    Pairs,
    Rows,
    add_at,
    count_keys,
    farthest_negatives,
    make_rows,
    over_all_pairs,
    strengths_of,
    sum_where,
)
from apparel_embed.losses.semi_hard_ties import (
    strengths_with_ties,
    strengths_with_ties_compiled,
)


class _Sums(NamedTuple):
    """What the pairs looked at so far add up to.

    Attributes:
      value: scalar, sum over the pairs.
      weights: float [rows, batch], derivatives of the value by the distances, without those by the
        farthest negatives in pairs that have none beyond the positive.
      inside: float [rows, 1], the number of these pairs.
      tied: bool scalar, whether the weights are wrong as a distance to a positive is one to a
        negative, too.
    """

    value: tf.Tensor
    weights: tf.Tensor
    inside: tf.Tensor
    tied: tf.Tensor


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
    compiled = not tf.config.list_physical_devices("GPU")
    look = _value_and_strengths_compiled if compiled else _value_and_strengths
    share = strengths_with_ties_compiled if compiled else strengths_with_ties
    value, strengths, tied = look(anchors, index, margin, distance)
    # Rare, and for another pass over the pairs.
    return value, tf.cond(tied, lambda: share(anchors, index, margin, distance), lambda: strengths)


def _value_and_strengths(
    anchors: Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns value and strengths, and whether ties make the latter wrong."""
    rows = make_rows(anchors, index, distance)
    nothing = _Sums(
        value=tf.zeros([], margin.dtype),
        weights=tf.zeros_like(rows.distances),
        inside=tf.zeros_like(rows.farthest),
        tied=tf.constant(False),
    )
    sums = over_all_pairs(
        rows, index, margin, lambda sums, pairs: _add_pairs(sums, pairs, rows), nothing
    )
    farthest = farthest_negatives(rows)
    count = sum_where(farthest, tf.ones_like(rows.keys))
    share = tf.math.divide_no_nan(sums.inside, count)
    weights = sums.weights - tf.where(farthest, share, 0.0)
    to_self = tf.gather(rows.distances, rows.anchors, batch_dims=1)
    tied = sums.tied | tf.reduce_any(to_self == rows.farthest)
    if distance not in ("L2", "squared-L2"):  # Of which the smallest, 0, has no derivative.
        tied |= tf.reduce_any((rows.farthest == rows.smallest) & (sums.inside > 0))
    return sums.value, strengths_of(weights, rows.distances, anchors, distance), tied


_value_and_strengths_compiled = tf.function(
    _value_and_strengths, jit_compile=True, reduce_retracing=True, autograph=False
)


def _add_pairs(sums: _Sums, pairs: Pairs, rows: Rows) -> _Sums:
    """Returns the sums with those of some pairs."""
    zero = tf.zeros([], sums.value.dtype)
    # Written so that NaN stays NaN and is noticed.
    hinge = tf.where(pairs.violation < 0, zero, pairs.violation)
    key = pairs.to_negative - rows.greatest
    count = count_keys(rows, key)
    share = tf.math.divide_no_nan(tf.where(pairs.is_outside, pairs.active, zero), count)
    weights = add_at(sums.weights, pairs.positives, pairs.active)
    for i in range(POSITIVES_AT_ONCE):
        chosen = rows.keys == key[:, i : i + 1]
        weights -= tf.where(chosen, share[:, i : i + 1], zero)
    # Several have the key, and it does not tell whether all of them are beyond the positive.
    mixed = (pairs.to_positive - rows.greatest == key) & (count > 1)
    tied = pairs.valid & (mixed | (pairs.to_positive == rows.farthest))
    return _Sums(
        value=sums.value + tf.reduce_sum(tf.where(pairs.valid, hinge, zero)),
        weights=weights,
        inside=sums.inside + sum_where(~pairs.is_outside, pairs.active),
        tied=sums.tied | tf.reduce_any(tied),
    )
