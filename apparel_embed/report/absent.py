"""The section on queries whose item is not in the gallery: how often they are wrongly accepted."""

from __future__ import annotations

from apparel_embed.evaluation.absent import SAME, SIMILAR
from apparel_embed.evaluation.table import DASH, absent_parts, absent_share
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Section, Table

_NAME, _TITLE = "absent", "Not in the catalogue"


def absent_section(inputs: ReportInputs) -> Section:
    """Returns the section on thresholds between "same item" and "similar only".

    Args:
      inputs: the inputs of the report.
    """
    absent = inputs.absent
    if absent is None:
        return Section(_NAME, _TITLE, "This run has no student with measured thresholds.")

    def share(value: float | None) -> str:
        return DASH if value is None else f"{value:.3f}"

    header = (
        "vertical", "searched", "gallery", "val items", "queries", "promised at most", "threshold",
        "accepted, item removed", "accepted and right, item present",
    )  # fmt: skip
    lines = tuple(
        (
            f"{row['vertical']}{absent_parts(row, one)}",
            row["scope"],
            *(f"{row[name]:,}" for name in ("gallery", "val_items")),
            f"{one['measured_queries']:,}",
            f"{one['promised']:.0%}",
            share(one["threshold"]),
            absent_share(one),
            share(one["accepted_and_right"]),
        )
        for row in absent["rows"]
        for one in row["levels"]
        if (one["threshold"], one["false_accepts"]) != (None, None)
    )
    caption = (
        f"A query whose nearest image is closer than the threshold is answered {SAME!r}, any other "
        f"{SIMILAR!r}. Thresholds are fitted on split val, with the gallery of all splits: at most "
        "the promised share of queries whose item is removed is accepted, on average over draws of "
        "val items. Only levels with a threshold are shown: 1 % needs 99 val items in a vertical, "
        "5 % needs 19, and 10 % needs 9; with fewer, a search gets no verdict. ALL within is the "
        "mean over verticals with a threshold and queries, ALL merged is a search in all of them."
    )
    title = f"Queries of split {absent['split']}; 95 % intervals over items in brackets"
    return Section(_NAME, _TITLE, caption, (Table(title, header, lines),) if lines else ())
