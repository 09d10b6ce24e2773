"""The section on queries whose item is not in the gallery: how many are taken for one that is."""

from __future__ import annotations

from apparel_embed.evaluation.absent import SAME, SIMILAR
from apparel_embed.evaluation.table import DASH, absent_share
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Section, Table

_NAME, _TITLE = "absent", "Not in the catalogue"


def absent_section(inputs: ReportInputs) -> Section:
    """Returns the section on thresholds between "same item" and "similar only".

    Args:
      inputs: of the report.
    """
    absent = inputs.absent
    if absent is None:
        return Section(_NAME, _TITLE, "This run has no student whose thresholds were measured.")

    def share(value: float | None) -> str:
        return DASH if value is None else f"{value:.3f}"

    header = (
        "vertical", "searched", "gallery", "val items", "queries", "promised at most", "threshold",
        "accepted, item removed", "accepted and right, item there",
    )  # fmt: skip
    lines = tuple(
        (
            row["vertical"],
            row["scope"],
            *(f"{row[name]:,}" for name in ("gallery", "val_items", "queries")),
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
        f"A query whose nearest image is closer than the threshold is answered {SAME!r}, another "
        f"{SIMILAR!r}. Thresholds are fitted on split val, in the gallery of all splits: of "
        "queries whose item is removed at most the promised share is accepted, on average over "
        "draws of val items. Only levels with a threshold are shown: 1 % needs 99 val items of a "
        "vertical, 5 % 19, 10 % 9; with fewer a search gets no verdict. ALL within is the mean "
        "over verticals, and merged a search in all of them."
    )
    title = f"Queries of split {absent['split']}; 95 % intervals over items in brackets"
    return Section(_NAME, _TITLE, caption, (Table(title, header, lines),) if lines else ())
