"""The effect on R@1 of searching the vertical that a head predicts, and when it pays off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.protocol import (
    MERGED,
    ROUTED,
    SERVED,
    WITHIN,
    Outcomes,
    answered_queries,
    compare_models,
    mean_and_interval,
    query_outcomes,
    summary_rows,
)
from apparel_embed.evaluation.split import ALL, EvaluationSet

LEAST_ROUTED = 50
"""With fewer queries, all may be right by chance, so no search is routed."""


@dataclasses.dataclass(frozen=True)
class RoutingCalibration:
    """The confidence of a vertical head from which a search uses the predicted vertical.

    Attributes:
      routing_confidence: the lowest such confidence; None if no search is routed.
      val_queries: number of val queries with an answer.
      routed_queries: number of these with at least that confidence; all if no search is routed.
      r_at_1_routed: R@1 of these in the predicted vertical; None without a query.
      r_at_1_merged: R@1 of these in all verticals; None without a query.
    """

    routing_confidence: float | None
    val_queries: int
    routed_queries: int
    r_at_1_routed: float | None
    r_at_1_merged: float | None

    def sentence(self) -> str:
        """Returns a sentence on how searches are routed and why."""
        queries = counted(self.val_queries, "val query", "val queries")
        if self.val_queries < LEAST_ROUTED:
            return (
                f"Searches go through all verticals: {queries} with an answer cannot show whether "
                f"routing finds less; {LEAST_ROUTED} are needed."
            )
        found = f"R@1 {self.r_at_1_routed:.3f} routed, {self.r_at_1_merged:.3f} in all verticals"
        if self.routing_confidence is None:
            return (
                f"Routing finds less than a search in all verticals ({found}, {queries}): searches "
                "go through all of them."
            )
        return (
            f"Searches are routed from a confidence of {self.routing_confidence:.3f}: {found} "
            f"({self.routed_queries:,} of {queries})."
        )


def calibrate_routing(
    confidence: Sequence[float] | np.ndarray,
    routed: Sequence[bool] | np.ndarray,
    merged: Sequence[bool] | np.ndarray,
) -> RoutingCalibration:
    """Returns the confidence from which searches are routed, measured on some queries.

    It maximises the number of queries that find their item first, if queries with at least that
    confidence are routed and the others searched in all verticals; ties go to the lowest. The
    routed queries find no less than they would in all verticals. (The lowest confidence with that
    property would lose on doubtful predictions what it gains on sure ones.) At least `LEAST_ROUTED`
    queries are routed; no search is if every such choice finds less.

    Args:
      confidence: [n] the head's confidence in its predicted vertical for each query.
      routed: [n] whether a search in that vertical finds the query's item first.
      merged: [n] whether a search in all verticals does.

    Examples:
      >>> confidence, routed = [0.9] * 60 + [0.4] * 40, [True] * 60 + [False] * 40
      >>> found = calibrate_routing(confidence, routed, merged=[True] * 80 + [False] * 20)
      >>> found.routing_confidence, found.routed_queries
      (0.9, 60)
    """
    order = np.argsort(-np.asarray(confidence, float), kind="stable")
    ordered, right, right_in_all = (
        np.asarray(values, float)[order] for values in (confidence, routed, merged)
    )
    count = len(order)
    # Queries with equal confidence are routed together, so a choice ends at the last of them.
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], count > 0))
    ends = ends[ends >= LEAST_ROUTED - 1]
    gains = np.cumsum(right - right_in_all)[ends]
    best, chosen = None, count
    if len(ends) and gains.max() >= 0:
        end = ends[np.flatnonzero(gains == gains.max())[-1]]
        best, chosen = float(ordered[end]), int(end) + 1
    return RoutingCalibration(
        best,
        count,
        chosen,
        float(right[:chosen].mean()) if count else None,
        float(right_in_all[:chosen].mean()) if count else None,
    )


def measure_routing(
    embeddings: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    evaluation_set: EvaluationSet,
) -> RoutingCalibration:
    """Calibrates routing by searching with every query in the predicted and in all verticals.

    Args:
      embeddings: as in `evaluate_routing`.
      predicted: as in `evaluate_routing`.
      confidence: as in `evaluate_routing`.
      evaluation_set: the images; queries without an answer are allowed.
    """
    if not answered_queries(evaluation_set):
        return calibrate_routing([], [], [])
    known = query_outcomes(embeddings, evaluation_set, WITHIN)
    merged = _search_in_all(embeddings, evaluation_set, known)
    is_right = _by_query(evaluation_set, predicted == evaluation_set.verticals)
    sureness = _by_query(evaluation_set, confidence)
    routed = _routed(known, is_right)
    names = list(known.answered())
    return calibrate_routing(
        np.concatenate([sureness(known.verticals[name]) for name in names]),
        np.concatenate([routed.verticals[name].recall[1] for name in names]),
        np.concatenate([merged.verticals[name].recall[1] for name in names]),
    )


def evaluate_routing(
    model: str,
    embeddings: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    evaluation_set: EvaluationSet,
    *,
    routing_confidence: float | None,
    parameters: int,
    seed: int = 0,
) -> tuple[list[dict], dict[str, Any]]:
    """Evaluates searches in the predicted vertical: for all queries, and as in production.

    Only the verticals of queries are predicted; a shop knows those of its gallery images. A query
    routed to a wrong vertical cannot find its item. In production ("served"), a query is routed
    only from a given confidence on, and otherwise searches all verticals.

    Args:
      model: name of the model.
      embeddings: [n, dim] of the images of the set, in its order.
      predicted: [n] str, the vertical predicted for each image.
      confidence: [n] the head's confidence in it.
      evaluation_set: the images.
      routing_confidence: the lowest confidence at which a search is routed; None to route none.
      parameters: number of parameters of the model and the head together.
      seed: seed of the bootstrap.

    Returns:
      Rows of `summary.json` with scopes "routed" (all queries are) and "served", and the entry
      `routing`: the head's accuracy on queries with an answer, overall (mean over verticals, with
      its 95 % interval) and by vertical; the number of queries routed in production; and the
      differences in R@1 between "routed" and the search in the known vertical, and between
      "served" and the search in all verticals.
    """
    known = query_outcomes(embeddings, evaluation_set, WITHIN)
    merged = _search_in_all(embeddings, evaluation_set, known)
    is_right = _by_query(evaluation_set, predicted == evaluation_set.verticals)
    threshold = np.inf if routing_confidence is None else routing_confidence
    is_sure = _by_query(evaluation_set, confidence >= threshold)
    routed = _routed(known, is_right)
    found = {
        name: _where_sure(is_sure(metrics), routed.verticals[name], metrics)
        for name, metrics in merged.verticals.items()
    }
    served = dataclasses.replace(merged, scope=SERVED, verticals=found)
    cost = {"parameters": int(parameters), "models_to_deploy": 1}
    rows = [
        {"model": model, **row, **cost}
        for outcomes in (routed, served)
        for row in summary_rows(outcomes, seed)
    ]
    in_all = known.counted()
    routing = {
        "model": model,
        "routing_confidence": routing_confidence,
        "routed": sum(int(is_sure(metrics).sum()) for metrics in in_all.values()),
        **_accuracy(in_all, is_right, seed),
        "verticals": [
            {"vertical": name, **_accuracy({name: metrics}, is_right, seed)}
            for name, metrics in known.answered().items()
        ],
        "r_at_1_difference": dataclasses.asdict(compare_models(routed, known, seed=seed)[ALL]),
        "served_difference": dataclasses.asdict(compare_models(served, merged, seed=seed)[ALL]),
    }
    return rows, routing


def _search_in_all(
    embeddings: np.ndarray, evaluation_set: EvaluationSet, known: Outcomes
) -> Outcomes:
    """Returns the merged outcomes of the queries that have an answer in their own vertical."""
    merged = query_outcomes(embeddings, evaluation_set, MERGED)
    # An item may be in several verticals, so more queries may have an answer in all of them.
    same = {
        name: metrics.select(np.isin(metrics.records, known.verticals[name].records))
        if len(metrics) != len(known.verticals[name])
        else metrics
        for name, metrics in merged.verticals.items()
    }
    return dataclasses.replace(merged, verticals=same)


def _by_query(
    evaluation_set: EvaluationSet, values: np.ndarray
) -> Callable[[QueryMetrics], np.ndarray]:
    """Returns the function that maps metrics to their queries' entries in `values`."""
    return lambda metrics: values[evaluation_set.positions(metrics.records)].astype(float)


def _routed(known: Outcomes, is_right: Callable[[QueryMetrics], np.ndarray]) -> Outcomes:
    """Returns the outcomes if every query searches the predicted vertical."""
    found = {
        name: dataclasses.replace(
            metrics,
            recall={k: values * is_right(metrics) for k, values in metrics.recall.items()},
            average_precision_at_r=metrics.average_precision_at_r * is_right(metrics),
        )
        for name, metrics in known.verticals.items()
    }
    return dataclasses.replace(known, scope=ROUTED, verticals=found)


def _where_sure(is_sure: np.ndarray, routed: QueryMetrics, merged: QueryMetrics) -> QueryMetrics:
    """Returns routed metrics for queries with a sure prediction, otherwise merged ones."""

    def chosen(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(is_sure > 0, one, other)

    return dataclasses.replace(
        merged,
        recall={k: chosen(routed.recall[k], merged.recall[k]) for k in merged.recall},
        average_precision_at_r=chosen(routed.average_precision_at_r, merged.average_precision_at_r),
        chance=chosen(routed.chance, merged.chance),
    )


def _accuracy(
    verticals: dict[str, QueryMetrics], is_right: Callable[[QueryMetrics], np.ndarray], seed: int
) -> dict[str, Any]:
    accuracy, low, high = mean_and_interval(verticals, is_right, seed)
    return {
        "queries": sum(map(len, verticals.values())),
        "accuracy": accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
    }
