"""Retrieval metrics with intervals for any arrays of embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.text_tables import as_texts
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.protocol import (
    WITHIN,
    EvaluationSet,
    mean_and_interval,
    query_outcomes,
)

# The vertical of all images if none are given.
_ONE_VERTICAL = "all images"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A metric and its interval.

    Attributes:
      value: the metric, 0 to 1.
      low: lower end of its 95 % interval, from a bootstrap over items.
      high: upper end.

    Examples:
      >>> print(Estimate(0.703, 0.669, 0.736))
      0.703 [0.669, 0.736]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class RetrievalResult:
    """The result of `evaluate_retrieval`.

    Attributes:
      queries: number of queries that count: those with another image of their item in the
        gallery.
      without_answer: number of queries that do not count.
      gallery: number of gallery images.
      r_at_1, r_at_5, r_at_10: share of queries with an image of their item among the nearest.
      map_at_r: mAP@R of Musgrave et al. 2020.
      verticals: the result for each vertical with a query that counts; empty within these results.

    Examples:
      >>> found = evaluate_retrieval(np.eye(4)[[0, 0, 1, 1]], ["a", "a", "b", "b"])
      >>> print(found)
      4 queries: R@1 1.000 [0.151, 1.000], R@5 ..., R@10 ..., mAP@R ...
    """

    queries: int
    without_answer: int
    gallery: int
    r_at_1: Estimate
    r_at_5: Estimate
    r_at_10: Estimate
    map_at_r: Estimate
    verticals: Mapping[str, RetrievalResult] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"{self.queries} queries: R@1 {self.r_at_1}, R@5 {self.r_at_5}, "
            f"R@10 {self.r_at_10}, mAP@R {self.map_at_r}"
        )


def evaluate_retrieval(
    embeddings: np.ndarray,
    item_ids: Sequence[str | int] | np.ndarray,
    *,
    verticals: Sequence[str | int] | np.ndarray | None = None,
    is_query: Sequence[bool] | np.ndarray | None = None,
    is_gallery: Sequence[bool] | np.ndarray | None = None,
    scope: str = WITHIN,
    seed: int = 0,
) -> RetrievalResult:
    """Evaluates embeddings by searching the gallery with each query, as the pipeline does.

    Distances are Euclidean between embeddings at unit length. An image never finds itself, and
    queries without another image of their item in the gallery do not count.

    Args:
      embeddings: [n, dim] real numbers, nonzero rows of any length, one per image.
      item_ids: [n] the item that each image shows, a string or an integer; the same id in two
        verticals stands for two items.
      verticals: [n] the vertical of each image, a string or an integer; None for images of one
        vertical.
      is_query: [n] whether an image is a query; None for all.
      is_gallery: [n] whether an image is in the gallery; None for all.
      scope: "within" searches the gallery of the query's vertical, "merged" that of all verticals.
      seed: seed of the bootstrap; the same seed gives the same intervals.

    Returns:
      Means over verticals of each vertical's mean over queries, with 95 % intervals, and the same
      figures for each vertical, keyed by its name as a string. Verticals with queries of fewer than
      five items do not count in the means, unless all have fewer.

    Raises:
      UserError: if shapes do not match, an item or vertical is missing (None, NaN or an empty
        string), an embedding is zero or not finite, the scope is unknown or no query has an answer.

    Examples:
      >>> embeddings = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
      >>> found = evaluate_retrieval(embeddings, ["shoe", "shoe", "bag", "bag"])
      >>> found.queries, found.r_at_1.value
      (4, 1.0)
      >>> print(found.map_at_r)
      1.000 [0.151, 1.000]
    """
    count = len(item_ids)
    images = EvaluationSet(
        records=np.arange(count),
        items=_names("item_ids", item_ids),
        verticals=_names("verticals", [_ONE_VERTICAL] * count if verticals is None else verticals),
        is_query=_flags("is_query", [True] * count if is_query is None else is_query),
        is_gallery=_flags("is_gallery", [True] * count if is_gallery is None else is_gallery),
    )
    items = np.char.add(np.char.add(images.verticals, "\n"), images.items)
    images = dataclasses.replace(images, items=items)
    outcomes = query_outcomes(embeddings, images, scope)
    answered = outcomes.answered()
    whole = _result(outcomes.counted(), outcomes.counted_gallery(), seed)
    silent = int(images.is_query.sum()) - sum(map(len, answered.values()))
    each = {
        name: _result({name: metrics}, outcomes.gallery[name], seed)
        for name, metrics in answered.items()
    }
    return dataclasses.replace(
        whole, without_answer=silent, verticals={} if verticals is None else each
    )


def _names(argument: str, values: Sequence[str | int] | np.ndarray) -> np.ndarray:
    """Returns strings or integers as strings, in the same way as a manifest's are read.

    Raises:
      UserError: if a value is missing, or a number is ambiguous as a string.
    """
    if np.ndim(values) != 1:
        return np.asarray(values)
    try:
        # Not through numpy, which turns a NaN among strings into a string.
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError) as error:
        raise UserError(
            f"{argument}: expected strings, or integers of up to 64 bits: {error}"
        ) from error
    texts = as_texts("evaluate_retrieval", pa.table({argument: column}), first_row=0)[argument]
    missing = pc.index(pc.equal(pc.utf8_trim_whitespace(texts), ""), True).as_py()
    if missing >= 0:
        raise UserError(
            f"{argument}[{missing}] is {column[missing].as_py()!r}; expected a value for every "
            "image: leave out images without one"
        )
    return texts.to_numpy().astype(str)


def _flags(argument: str, values: Sequence[bool] | np.ndarray) -> np.ndarray:
    """Returns flags as bool; raises a UserError if one is neither True nor False."""
    flags = np.asarray(values)
    wrong = ~np.isin(flags, [False, True])
    if wrong.any():
        place = int(np.argmax(wrong))
        raise UserError(f"{argument}[{place}] is {flags.ravel()[place]!r}; expected True or False")
    return flags.astype(bool)


def _result(verticals: Mapping[str, QueryMetrics], gallery: int, seed: int) -> RetrievalResult:
    """Returns means over some verticals, each of which has an answered query."""

    def estimate(values_of: Callable[[QueryMetrics], np.ndarray]) -> Estimate:
        return Estimate(*mean_and_interval(verticals, values_of, seed))

    return RetrievalResult(
        queries=sum(map(len, verticals.values())),
        without_answer=sum(one.without_answer for one in verticals.values()),
        gallery=gallery,
        r_at_1=estimate(lambda one: one.recall[1]),
        r_at_5=estimate(lambda one: one.recall[5]),
        r_at_10=estimate(lambda one: one.recall[10]),
        map_at_r=estimate(lambda one: one.average_precision_at_r),
    )
