"""Writes the report: the page and its figures."""

from __future__ import annotations

import time
from pathlib import Path

from absl import logging

from apparel_embed.common.files import atomic_path
from apparel_embed.report.compression import compression_section
from apparel_embed.report.cost import cost_section
from apparel_embed.report.curves import curves_section
from apparel_embed.report.embedding_map import map_section
from apparel_embed.report.gap import gap_section
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import render_page
from apparel_embed.report.ranks import ranks_section
from apparel_embed.report.sweep import sweep_section
from apparel_embed.report.teachers import teachers_section

PAGE_FILE = "index.html"
# In the order shown. A new section is a function and a line here.
SECTIONS = (
    gap_section,
    cost_section,
    compression_section,
    sweep_section,
    teachers_section,
    ranks_section,
    map_section,
    curves_section,
)


def write_report(inputs: ReportInputs, directory: Path) -> dict[str, list[str]]:
    """Writes `index.html`, and each of its figures as a PNG file beside it.

    Args:
      inputs: what to report.
      directory: where to.

    Returns:
      Names of the sections and of the figures' files.
    """
    sections = []
    for make in SECTIONS:
        start = time.monotonic()
        sections.append(make(inputs))
        logging.info("report: %s, %.1f s", sections[-1].name, time.monotonic() - start)
    figures = []
    for section in sections:
        for picture in section.pictures():
            figures.append(f"{picture.name}.png")
            with atomic_path(directory / figures[-1]) as temporary:
                temporary.write_bytes(picture.png)
    with atomic_path(directory / PAGE_FILE) as temporary:
        temporary.write_text(render_page(inputs, sections), "utf-8")
    return {"sections": [section.name for section in sections], "figures": figures}
