"""Writes the report: the page and its figures."""

from __future__ import annotations

import time
from pathlib import Path

from absl import logging

from apparel_embed.common.files import atomic_path
from apparel_embed.report.absent import absent_section
from apparel_embed.report.cost import compression_section, cost_section
from apparel_embed.report.detection import detection_section
from apparel_embed.report.embedding_map import map_section
from apparel_embed.report.gap import gap_section
from apparel_embed.report.inputs import ReportInputs
from apparel_embed.report.page import Figure, render
from apparel_embed.report.ranks import RIGHT, WRONG, ranks_section
from apparel_embed.report.sweep import sweep_section
from apparel_embed.report.trainings import teachers_section, trainings_section

PAGE_FILE = "index.html"
# In display order. To add a section, write a function and add a line here.
SECTIONS = (
    gap_section,
    cost_section,
    detection_section,
    absent_section,
    compression_section,
    sweep_section,
    teachers_section,
    ranks_section,
    map_section,
    trainings_section,
)


def write_report(inputs: ReportInputs, directory: Path) -> dict[str, list[str]]:
    """Writes `index.html` and each of its figures as a PNG file next to it.

    Args:
      inputs: the inputs of the report.
      directory: the directory to write to.

    Returns:
      Names of the sections and of the figures' files.
    """
    sections = []
    for make in SECTIONS:
        start = time.monotonic()
        sections.append(make(inputs))
        logging.info("report: %s, %.1f s", sections[-1].name, time.monotonic() - start)
    figures = []
    for part in (part for section in sections for part in section.parts):
        if isinstance(part, Figure):
            figures.append(f"{part.name}.png")
            with atomic_path(directory / figures[-1]) as temporary:
                temporary.write_bytes(part.png)
    images = inputs.images
    facts = [
        ("split", inputs.split),
        ("verticals", f"{len(images.by_vertical()):,}"),
        ("images", f"{len(images):,}"),
        ("query images", f"{int(images.is_query.sum()):,}"),
        ("gallery images", f"{int(images.is_gallery.sum()):,}"),
        ("dataset", inputs.dataset.fingerprint[:12]),
    ]
    title = f"Report of {inputs.run}"
    page = render(
        "report.html", title=title, facts=facts, sections=sections, right=RIGHT, wrong=WRONG
    )
    with atomic_path(directory / PAGE_FILE) as temporary:
        temporary.write_text(page, "utf-8")
    return {"sections": [section.name for section in sections], "figures": figures}
