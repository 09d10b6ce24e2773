"""The page: sections rendered as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from apparel_embed.report.html import render
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.parts import Section
from apparel_embed.report.ranks_figure import RIGHT, WRONG


def render_page(inputs: ReportInputs, sections: Sequence[Section]) -> str:
    """Returns the report as HTML that needs no other file, network or script.

    Args:
      inputs: that the sections were made from.
      sections: in the order shown.
    """
    return render(
        "report.html",
        title=f"Report of {inputs.run}",
        facts=_facts(inputs),
        sections=sections,
        right=RIGHT,
        wrong=WRONG,
    )


def _facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    pictures = inputs.pictures
    return [
        ("split", inputs.split),
        ("verticals", f"{len(pictures.by_vertical()):,}"),
        ("pictures", f"{len(pictures):,}"),
        ("query pictures", f"{int(pictures.is_query.sum()):,}"),
        ("gallery pictures", f"{int(pictures.is_gallery.sum()):,}"),
        ("dataset", inputs.dataset.fingerprint[:12]),
    ]
