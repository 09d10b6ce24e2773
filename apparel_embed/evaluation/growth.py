"""Comparison of a student with that of an earlier run: what it keeps, gains and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apparel_embed.evaluation.protocol import (
    ALL,
    EvaluationSet,
    Outcomes,
    answered_queries,
    compare_models,
    mean_and_interval,
    query_outcomes,
)
from apparel_embed.evaluation.table import signed_interval, with_interval
from apparel_embed.evaluation.training_cost import TrainingCost

GROWTH_FILE = "growth.json"
SEARCHES = ("old_on_old", "new_on_old", "new_on_new")
"""The student that embeds the queries, and the one that embeds the gallery."""


def measure_growth(
    images: EvaluationSet,
    *,
    old: np.ndarray,
    new: np.ndarray,
    full: np.ndarray | None,
    old_verticals: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """Returns the figures of `growth.json`: R@1 within, means over verticals with intervals.

    Args:
      images: the evaluation set.
      old: float32 [n, dim], embeddings from the earlier student.
      new: float32 [n, dim], embeddings from the new student, in the space of the earlier one.
      full: float32 [n, any dim], embeddings from the student of a full run; None without one.
      old_verticals: the verticals that the earlier student was trained on.
      seed: seed of the bootstrap.
    """
    is_old = np.isin(images.verticals, old_verticals)
    found: dict[str, Any] = dict.fromkeys(
        (*SEARCHES, "new_on_old_difference", "old_verticals_change", "new_vertical_difference")
    )
    known = images.only(is_old)
    if answered_queries(known):
        ours, theirs = new[is_old], old[is_old]
        outcomes = dict(
            zip(
                SEARCHES,
                (
                    query_outcomes(theirs, known),
                    query_outcomes(theirs, known, query_embeddings=ours),
                    query_outcomes(ours, known),
                ),
            )
        )
        found |= {name: _mean(one, seed) for name, one in outcomes.items()}
        before, across, after = outcomes.values()
        found["new_on_old_difference"] = compare_models(across, before, seed=seed)[ALL].as_record()
        changes = compare_models(after, before, seed=seed)
        found["old_verticals_change"] = {
            **changes.pop(ALL).as_record(),
            "by_vertical": [change.as_record() for change in changes.values()],
        }
    added = images.only(~is_old)
    if full is not None and answered_queries(added):
        grown, whole = (query_outcomes(one[~is_old], added) for one in (new, full))
        difference = compare_models(grown, whole, seed=seed)[ALL]
        found["new_vertical_difference"] = difference.as_record()
    return found


def cost_ratio(grown: TrainingCost, other: TrainingCost, compared_to: str) -> dict[str, Any]:
    """Returns the training cost of a student as a share of another student's.

    Args:
      grown: cost of the student.
      other: cost of the other student.
      compared_to: the other student's run.
    """
    return {
        "compared_to": compared_to,
        "seconds": grown.seconds / other.seconds if other.seconds else None,
        "steps": grown.steps / other.steps if other.steps else None,
        "grown": {"seconds": grown.seconds, "steps": grown.steps},
        "other": {"seconds": other.seconds, "steps": other.steps},
    }


def render_growth(growth: Mapping[str, Any]) -> str:
    """Returns the content of `growth.json` as lines of text."""
    cost = growth["cost_ratio"]
    lines = [f"Against {growth['old_model']}: R@1 within on its verticals, mean over verticals"]
    lines += [f"{name}: {with_interval(growth[name])}" for name in SEARCHES]
    lines += [
        f"{name}: {signed_interval(growth[name]) if growth[name] else 'not measured'}"
        for name in ("new_on_old_difference", "old_verticals_change", "new_vertical_difference")
    ]
    if cost["seconds"] is not None and cost["steps"] is not None:
        lines.append(
            f"cost_ratio: {cost['seconds']:.2f} of the training seconds and {cost['steps']:.2f} of "
            f"the steps of {cost['compared_to']}"
        )
    return "\n".join(lines)


def _mean(outcomes: Outcomes, seed: int) -> dict[str, Any]:
    counted = outcomes.counted()
    mean, low, high = mean_and_interval(counted, lambda metrics: metrics.recall[1], seed)
    queries = sum(map(len, counted.values()))
    return {"r_at_1": mean, "r_at_1_low": low, "r_at_1_high": high, "queries": queries}
