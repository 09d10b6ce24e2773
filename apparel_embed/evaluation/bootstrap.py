"""Intervals of means over queries, from a bootstrap over items.

Queries of one item are alike, so items are drawn instead of queries, each with all its queries.
Intervals are percentile intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
chapter 13). If all items agree, resampling alone gives an interval of zero width, however few they
are. The share of unseen items that differ is then drawn: see `stratified_bootstrap_interval`.
"""

from __future__ import annotations

import numpy as np

from apparel_embed.common.errors import UserError

# Draws held in memory at once. It affects the result: another value draws in another order.
_DRAWS_AT_ONCE = 1 << 22


def stratified_bootstrap_interval(
    values: np.ndarray,
    items: np.ndarray,
    strata: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    possible: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """Returns the interval of the mean over strata of each stratum's mean over queries.

    Items are drawn within each stratum (a vertical), so every resample contains all strata. If the
    n items of a stratum all agree, every resample would be the same. With `possible` given, the
    share of unseen items that differ is then drawn from Beta(1, n), whose quantiles are those of
    `unseen_loss`, and these items take the farthest possible value. The interval covers the means
    with and without them, so unseen items never move an end towards the mean.

    In differences between two models on the same queries, what makes an item hard for both cancels
    out: if the interval excludes zero, one model is better beyond chance. With `possible` of
    (-1, 1), unseen items may contradict all seen ones, so fewer than six seen items show nothing,
    as in a sign test. If both models agree on all items, the interval has no width.

    Args:
      values: [n] one number per query, n at least 1.
      items: [n] the item of each query; the same id in two strata stands for two items.
      strata: [n] the stratum of each query.
      seed: the same seed gives the same interval, whatever the order of queries.
      resamples: number of resamples, at least 1.
      confidence: share of resampled means inside the interval, between 0 and 1.
      possible: the smallest and the largest value a query can have, such as (0, 1). With None,
        items that agree give an interval of zero width.

    Returns:
      Lower and upper end.

    Raises:
      UserError: if there are no values, lengths differ, or a number is out of range.

    Examples:
      >>> ones, items, one_stratum = np.ones(2), np.arange(2), np.zeros(2)
      >>> stratified_bootstrap_interval(ones, items, one_stratum)
      (1.0, 1.0)
      >>> low, high = stratified_bootstrap_interval(ones, items, one_stratum, possible=(0, 1))
      >>> low < 0.3, high
      (True, 1.0)
    """
    values, items, strata = np.asarray(values, np.float64), np.asarray(items), np.asarray(strata)
    if not (values.ndim == 1 and values.shape == items.shape == strata.shape):
        raise UserError(
            "expected one-dimensional values, items and strata of the same length, got shapes "
            f"{values.shape}, {items.shape} and {strata.shape}"
        )
    if not len(values):
        raise UserError("no values to resample; expected at least one query")
    if not np.isfinite(values).all():
        raise UserError(f"{(~np.isfinite(values)).sum()} of {len(values)} values are not finite")
    if resamples < 1:
        raise UserError(f"resamples is {resamples}; expected 1 or more")
    if not 0 < confidence < 1:
        raise UserError(f"confidence is {confidence}; expected a number above 0 and below 1")
    generator = np.random.default_rng(seed)
    means, unseen = np.zeros(resamples), np.zeros(resamples)
    inside_of = positions_of(strata)
    for inside in inside_of.values():
        drawn = _resampled_means(values[inside], items[inside], resamples, generator)
        if possible is not None and np.ptp(drawn) == 0:
            count = len(np.unique(items[inside]))
            unseen += _unseen(drawn[0], count, possible, resamples, generator)
        means += drawn
    both = np.stack([means, means + unseen]) / len(inside_of)
    low, high = np.quantile(both, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return float(low.min()), float(high.max())


def unseen_loss(items: int, confidence: float) -> float:
    """Returns the largest share of all items that may be lost if no seen item is.

    It is the exact upper limit of a share with no observed case (Clopper and Pearson, 1934). If
    more items were lost, at least one seen item would be, with this confidence or more. At 0.95 it
    is about 3 / items, the "rule of three".

    Args:
      items: number of items seen, 1 or more.
      confidence: above 0, below 1.
    """
    return 1 - (1 - confidence) ** (1 / items)


def positions_of(values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the ascending positions of each value, keyed by the value as text, sorted.

    Examples:
      >>> positions_of(np.array(["b", "a", "b"]))
      {'a': array([1]), 'b': array([0, 2])}
    """
    names, codes = np.unique(values, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    return {str(name): part for name, part in zip(names, np.split(order, ends[:-1]))}


def _unseen(
    seen: float,
    items: int,
    possible: tuple[float, float],
    resamples: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Returns how far means may be from the value all seen items agree on: float64 [resamples]."""
    low, high = possible
    if low < 0 and seen == 0:
        return np.zeros(resamples)
    share = generator.beta(1, items, resamples)
    ends = np.array([end for end in (low, high) if end != seen])
    return share * (generator.choice(ends, resamples) - seen)


def _resampled_means(
    values: np.ndarray, items: np.ndarray, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    _, codes = np.unique(items, return_inverse=True)
    counts = np.bincount(codes)
    # Sorting makes the rounding of sums independent of the order of queries.
    order = np.lexsort((values, codes))
    sums = np.bincount(codes[order], weights=values[order])
    means = np.empty(resamples)
    at_once = max(1, _DRAWS_AT_ONCE // len(counts))
    for start in range(0, resamples, at_once):
        some = slice(start, min(start + at_once, resamples))
        drawn = generator.integers(len(counts), size=(some.stop - some.start, len(counts)))
        means[some] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means
