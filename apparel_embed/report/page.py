"""The page: sections rendered as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.parts import Section
from apparel_embed.report.ranks_figure import RIGHT, WRONG


def render_page(inputs: ReportInputs, sections: Sequence[Section]) -> str:
    """Returns the report as HTML that needs no other file, network or script.

    Args:
      inputs: that the sections were made from.
      sections: in the order shown.
    """
    environment = Environment(
        loader=PackageLoader("apparel_embed.report"),
        # Names of verticals and items are the user's: nothing of them may become markup.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        run=inputs.run,
        facts=_facts(inputs),
        sections=sections,
        right=RIGHT,
        wrong=WRONG,
    )


def _facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    pictures = inputs.pictures
    return [
        ("split", inputs.split),
        ("verticals", f"{len(pictures.vertical_names()):,}"),
        ("pictures", f"{len(pictures):,}"),
        ("query pictures", f"{int(pictures.is_query.sum()):,}"),
        ("gallery pictures", f"{int(pictures.is_gallery.sum()):,}"),
        ("dataset", inputs.dataset.fingerprint[:12]),
    ]
