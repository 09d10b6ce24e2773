"""The models that an evaluation compares: their names, their order, and which one to deploy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apparel_embed.common.text import counted
from apparel_embed.evaluation.protocol import ALL, WITHIN

HISTOGRAM = "colour_histogram"
FROZEN = "frozen_backbone"
COMBINED = "combined"
SPECIALISTS = "specialists"
GROUPED = "grouped_specialists"
UNIFIED = "unified"
"""The student."""

MODEL_ORDER = (HISTOGRAM, FROZEN, COMBINED, SPECIALISTS, GROUPED, UNIFIED)


def ordered_models(names: Iterable[str]) -> list[str]:
    """Returns each name once, in `MODEL_ORDER`, then other names in the given order."""
    unique = list(dict.fromkeys(names))
    known = [name for name in MODEL_ORDER if name in unique]
    return known + [name for name in unique if name not in MODEL_ORDER]


def model_to_deploy(
    rows: Sequence[Mapping[str, Any]], comparisons: Sequence[Mapping[str, Any]]
) -> tuple[str, str]:
    """Returns the better of the two choices with one model to deploy, and the reason.

    This is the student unless the combined model is clearly better: if neither is, the student can
    still learn from further specialists.

    Args:
      rows: `rows` of `summary.json`.
      comparisons: `comparisons` of `summary.json`.

    Returns:
      `unified`, `combined`, or "" if they were not compared; and the reason in words.

    Examples:
      >>> compared = {"model": "unified", "minus": "combined", "vertical": "ALL", "queries": 960,
      ...             "difference": 0.15, "low": 0.12, "high": 0.19, "is_clear": True}
      >>> model_to_deploy([], [compared])
      ('unified', 'R@1 0.150 [0.120, 0.190] above combined')
    """
    wanted = (UNIFIED, COMBINED, ALL)
    pair = [one for one in comparisons if (one["model"], one["minus"], one["vertical"]) == wanted]
    if not pair:
        return "", "student and combined model were not compared"
    found = pair[0]
    low, high = sorted((abs(found["low"]), abs(found["high"])))
    if not found["is_clear"]:
        model = UNIFIED
        queries = counted(found["queries"], "query", "queries")
        interval = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
        why = f"the default; R@1 {interval} against combined may be chance ({queries}), so try both"
    else:
        model, other = (UNIFIED, COMBINED) if found["difference"] > 0 else (COMBINED, UNIFIED)
        why = f"R@1 {abs(found['difference']):.3f} [{low:.3f}, {high:.3f}] above {other}"
    return model, why + _beside_colours(rows, model)


def _beside_colours(rows: Sequence[Mapping[str, Any]], model: str) -> str:
    """Returns a warning if a histogram, which learns nothing, is as good as the model."""
    r_at_1 = {
        row["model"]: row["r_at_1"]
        for row in rows
        if (row["scope"], row["vertical"]) == (WITHIN, ALL) and row["r_at_1"] is not None
    }
    if HISTOGRAM not in r_at_1 or model not in r_at_1 or r_at_1[HISTOGRAM] < r_at_1[model]:
        return ""
    return (
        f"; but a colour histogram reaches {r_at_1[HISTOGRAM]:.3f} against {r_at_1[model]:.3f}: "
        "there was too little data to learn from"
    )
