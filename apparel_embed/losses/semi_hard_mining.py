"""What some anchors add to the semi-hard triplet loss and to its gradient: what takes the time."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from apparel_embed.losses.semi_hard_rows import (
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
from apparel_embed.losses.semi_hard_ties import strengths_with_ties

# Positives of an anchor looked at in one go: more make longer code for batches of small items.
_POSITIVES_AT_ONCE = 11
# Parts that rows are folded into.
_FOLDS = 16
# Anchors with ties that are looked at again in one go.
_TIED_AT_ONCE = 8


class _Sums(NamedTuple):
    """What the pairs looked at so far add up to.

    Attributes:
      value: scalar, sum over the pairs.
      weights: float [rows, batch], derivatives of the value by the distances, without those by the
        farthest negatives in pairs that have none beyond the positive.
      inside: float [rows, 1], the number of these pairs.
      tied: bool [rows, 1], whether the weights are wrong as a positive is as far as a negative.
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
    look = _look_at_all_compiled if compiled else _look_at_all
    value, strengths, tied = look(anchors, index, margin, distance)
    return value, tf.cond(
        tf.reduce_any(tied),
        lambda: _look_again(strengths, tied, anchors, index, margin, distance),
        lambda: strengths,
    )


def _look_at_all(
    anchors: Anchors, index: ItemIndex, margin: tf.Tensor, distance: str | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns value, strengths, and bool [rows, 1], where ties make the latter wrong."""
    rows = make_rows(anchors, index, distance, _FOLDS)
    nothing = _Sums(
        value=tf.zeros([], margin.dtype),
        weights=tf.zeros_like(rows.distances),
        inside=tf.zeros_like(rows.farthest),
        tied=tf.zeros_like(rows.farthest, tf.bool),
    )
    sums = over_all_pairs(
        rows,
        _POSITIVES_AT_ONCE,
        index,
        margin,
        lambda sums, pairs: _add_pairs(sums, pairs, rows),
        nothing,
    )
    farthest = farthest_negatives(rows)
    share = tf.math.divide_no_nan(sums.inside, sum_where(farthest, tf.ones_like(rows.distances)))
    weights = sums.weights - tf.where(farthest, share, 0.0)
    to_self = tf.gather(rows.distances, rows.anchors, batch_dims=1)
    tied = rows.has_negatives & (sums.tied | (to_self == rows.farthest))
    if distance in ("L2", "squared-L2"):  # A distance of 0 has no derivative to be shared.
        tied &= rows.farthest > 0
    else:
        tied |= (rows.farthest == rows.smallest) & (sums.inside > 0)
    return sums.value, strengths_of(weights, rows.distances, anchors, distance), tied


_look_at_all_compiled = tf.function(
    _look_at_all, jit_compile=True, reduce_retracing=True, autograph=False
)


def _add_pairs(sums: _Sums, pairs: Pairs, rows: Rows) -> _Sums:
    """Returns the sums with those of some pairs."""
    zero = tf.zeros([], sums.value.dtype)
    # Written so that NaN stays NaN and is noticed.
    hinge = tf.where(pairs.violation < 0, zero, pairs.violation)
    weights = add_at(sums.weights, pairs.positives, pairs.active)
    key = pairs.to_negative - rows.greatest
    count = count_keys(rows, key)
    share = tf.math.divide_no_nan(tf.where(pairs.is_outside, pairs.active, zero), count)
    for i in range(_POSITIVES_AT_ONCE):
        one = slice(i, i + 1)
        weights -= tf.where(rows.keys == key[:, one], share[:, one], zero)
    # Where several have the positive's key, it does not tell which of them are beyond.
    tied = (pairs.to_positive - rows.greatest == key) & (count > 1)
    tied = pairs.valid & (tied | (pairs.to_positive == rows.farthest))
    return _Sums(
        value=sums.value + tf.reduce_sum(tf.where(pairs.valid, hinge, zero)),
        weights=weights,
        inside=sums.inside + sum_where(~pairs.is_outside, pairs.active),
        tied=sums.tied | tf.reduce_any(tied, axis=1, keepdims=True),
    )


def _look_again(
    strengths: tf.Tensor,
    tied: tf.Tensor,
    anchors: Anchors,
    index: ItemIndex,
    margin: tf.Tensor,
    distance: str | None,
) -> tf.Tensor:
    """Returns the strengths with those of tied anchors set right, a few anchors at a time."""
    tied = tied[:, 0]
    tied_first = tf.argsort(tf.cast(tied, tf.int32), direction="DESCENDING")
    count = tf.reduce_sum(tf.cast(tied, tf.int32))
    last = tf.shape(tied)[0] - 1

    def some(begin: tf.Tensor, strengths: tf.Tensor) -> tuple:
        # Beyond the last anchor there is that one again.
        these = tf.gather(tied_first, tf.minimum(begin + tf.range(_TIED_AT_ONCE), last))
        part = strengths_with_ties(_gather_anchors(anchors, these), index, margin, distance)
        strengths = tf.tensor_scatter_nd_update(strengths, these[:, tf.newaxis], part)
        return begin + _TIED_AT_ONCE, strengths

    _, strengths = tf.while_loop(
        lambda begin, _: begin < count, some, (0, strengths), parallel_iterations=1
    )
    return strengths


def _gather_anchors(anchors: Anchors, chosen: tf.Tensor) -> Anchors:
    """Returns some of the anchors, by their positions."""
    per_anchor = {
        name: None if values is None else tf.gather(values, chosen)
        for name, values in anchors._asdict().items()
        if name != "all_lengths"
    }
    return anchors._replace(**per_anchor)
