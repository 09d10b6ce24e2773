"""The section on photographs: how well garments and their items are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apparel_embed.common.text import counted
from apparel_embed.evaluation.split import ALL
from apparel_embed.evaluation.street import DETECTED, TRUE_BOXES, WHOLE
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, Section, Table

_NAME, _TITLE = "detection", "Garments in photographs"
_WAYS = {
    DETECTED: "detected box, in the detected vertical",
    TRUE_BOXES: "true box, in the true vertical",
    WHOLE: "whole photograph, in all verticals",
}


def detection_section(inputs: ReportInputs) -> Section:
    """Returns the section on the detector.

    Args:
      inputs: the inputs of the report.
    """
    found = inputs.detection
    if found is None:
        return Section(_NAME, _TITLE, "This run has no detector; --detector trains one.")
    verticals = {ALL: found, **found["verticals"]}
    parts: list[Any] = [
        Table(
            f"Boxes: {counted(found['garments'], 'garment')} of "
            f"{counted(found['photographs'], 'photograph')} of split {found['split']}; a box with "
            f"a score of at least {found['score_threshold']:g} counts as found",
            ("vertical", "garments", "AP50", "AP", "missed", "wrong vertical", "false alarms"),
            tuple(_boxes(name, row) for name, row in verticals.items()),
        )
    ]
    searched = {name: row for name, row in verticals.items() if row.get("queries")}
    if searched:
        parts.append(
            Table(
                "R@1 of items by the part of the photograph that is the query",
                ("vertical", "garments", *_WAYS.values()),
                tuple(_items(name, row) for name, row in searched.items()),
            )
        )
    if inputs.detection_sheet:
        parts.append(
            Figure(
                "detection",
                "The photographs with the most misses and false alarms. White: a garment's box; "
                "green: found and right; red: a false alarm or a wrong vertical.",
                inputs.detection_sheet,
            )
        )
    caption = (
        "A box is right if its overlap with a garment's box (IoU) is 0.5 or more. AP50 and AP are "
        "COCO's average precision. A garment that was not detected counts as not found."
    )
    return Section(_NAME, _TITLE, caption, tuple(parts))


def _boxes(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = (row["missed"], row["wrong_vertical"], row["false_alarms"])
    ap50 = _with_interval(row["ap50"], row["ap50_low"], row["ap50_high"])
    return name, f"{row['garments']:,}", ap50, f"{row['ap']:.3f}", *(f"{one:,}" for one in numbers)


def _items(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    figures = (
        _with_interval(*(row[f"r_at_1_{way}{end}"] for end in ("", "_low", "_high")))
        for way in _WAYS
    )
    return name, f"{row['queries']:,}", *figures


def _with_interval(value: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{value:.3f}{ends}"
