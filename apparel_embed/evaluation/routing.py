"""What it costs to search where a vertical head sends a picture, instead of in its own vertical."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from apparel_embed.evaluation.protocol import (
    ALL,
    ROUTED,
    SHARE,
    WITHIN,
    EvaluationSet,
    Outcomes,
    compare_models,
    query_outcomes,
    summary_rows,
)
from apparel_embed.retrieval.bootstrap import bootstrap_interval, stratified_bootstrap_interval
from apparel_embed.retrieval.metrics import QueryMetrics


def evaluate_routing(
    model: str,
    embeddings: np.ndarray,
    predicted: np.ndarray,
    evaluation_set: EvaluationSet,
    *,
    parameters: int,
    seed: int = 0,
) -> tuple[list[dict], dict[str, Any]]:
    """Evaluates a search in the gallery of the vertical that is predicted for a query.

    Only queries are predicted: of gallery pictures a shop knows the vertical. A query that is sent
    to another vertical finds nothing that is right.

    Args:
      model: name of the model.
      embeddings: [n, dim] of the pictures of the set, in its order.
      predicted: [n] str, the vertical predicted for each picture.
      evaluation_set: the pictures.
      parameters: of the model and the head together.
      seed: of the bootstrap.

    Returns:
      Rows of `summary.json` with scope "routed", and the entry `routing`: the head's accuracy on
      queries with an answer, in all (mean over verticals, with its 95 % interval) and by vertical,
      and the difference in R@1 to the search in the known vertical.
    """
    known = query_outcomes(embeddings, evaluation_set, WITHIN)
    is_right = dict(zip(evaluation_set.records, predicted == evaluation_set.verticals))
    routed = Outcomes(
        ROUTED,
        {name: _where_right(metrics, is_right) for name, metrics in known.verticals.items()},
        known.gallery,
        known.gallery_in_all,
    )
    cost = {"parameters": int(parameters), "models_to_deploy": 1}
    rows = [{"model": model, **row, **cost} for row in summary_rows(routed, seed)]
    difference = compare_models(routed, known, seed=seed)
    routing = {
        "model": model,
        **_accuracy(known, is_right, seed),
        "r_at_1_difference": dataclasses.asdict(difference[ALL]),
    }
    return rows, routing


def _where_right(metrics: QueryMetrics, is_right: dict[int, bool]) -> QueryMetrics:
    """Returns metrics of which nothing is left where a query is sent to another vertical."""
    right = np.array([is_right[record] for record in metrics.records], float)
    return dataclasses.replace(
        metrics,
        recall={k: values * right for k, values in metrics.recall.items()},
        average_precision_at_r=metrics.average_precision_at_r * right,
    )


def _accuracy(known: Outcomes, is_right: dict[int, bool], seed: int) -> dict[str, Any]:
    right = {
        name: np.array([is_right[record] for record in metrics.records], float)
        for name, metrics in known.answered().items()
    }
    rows: list[dict[str, Any]] = []
    for name, metrics in known.answered().items():
        low, high = bootstrap_interval(right[name], metrics.items, seed, possible=SHARE)
        rows.append(
            {
                "vertical": name,
                "queries": len(metrics),
                "accuracy": float(right[name].mean()),
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    counted = known.counted()
    low, high = stratified_bootstrap_interval(
        np.concatenate([right[name] for name in counted]),
        np.concatenate([metrics.items for metrics in counted.values()]),
        np.repeat(list(counted), [len(metrics) for metrics in counted.values()]),
        seed,
        possible=SHARE,
    )
    return {
        "queries": sum(len(metrics) for metrics in counted.values()),
        "accuracy": float(np.mean([right[name].mean() for name in counted])),
        "accuracy_low": low,
        "accuracy_high": high,
        "verticals": rows,
    }
