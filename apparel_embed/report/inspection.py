"""Output of a dataset's inspection: a page, a JSON summary, a list of findings, and a terminal."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path, write_json
from apparel_embed.common.text import counted
from apparel_embed.data.inspection.findings import ERROR, NOTE, SEVERITIES, WARNING, Finding
from apparel_embed.data.inspection.images import (
    count_formats,
    count_reasons,
    count_shapes,
    count_sides,
)
from apparel_embed.data.inspection.inspect import MOST_SHEETS, Inspection
from apparel_embed.data.inspection.labels import EVALUATED, Cell, count_by_images
from apparel_embed.data.manifest import SPLITS
from apparel_embed.report.page import Table, render

PAGE_FILE = "index.html"
SUMMARY_FILE = "summary.json"
FINDINGS_FILE = "findings.csv"
_COLUMNS = ("image", "item_id", "vertical", "split")
_DASH = "-"
_STYLES = {ERROR: "bold red", WARNING: "bold yellow", NOTE: "bold blue"}


def check_output(directory: Path) -> None:
    """Raises a UserError if a report's directory cannot be created or written to."""
    try:
        existing = next(place for place in (directory, *directory.parents) if place.exists())
        # Checking permissions is not enough: the disk may be read-only.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"--output={directory} cannot be written: {error.strerror}") from error


def write_inspection(inspection: Inspection, directory: Path) -> None:
    """Writes `index.html`, `summary.json` and `findings.csv`; the same input gives the same bytes.

    Args:
      inspection: the finished inspection.
      directory: the directory to write to; files of an earlier inspection are replaced.

    Raises:
      UserError: if the directory cannot be created or a file cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={directory} cannot be created: {error.strerror}") from error
    manifest = Path(inspection.config.manifest).absolute()
    summary = summarise(inspection)
    page = render(
        "inspection.html",
        title=f"Health of {manifest.parent.name}/{manifest.name}",
        facts=_facts(summary),
        verdict=_verdict(summary),
        summary=summary,
        verticals=_verticals_table(inspection),
        inspection=inspection,
        most_sheets=MOST_SHEETS,
        counted=counted,
    )
    try:
        with atomic_path(directory / PAGE_FILE) as temporary:
            temporary.write_text(page, "utf-8")
        with atomic_path(directory / FINDINGS_FILE) as temporary:
            pyarrow.csv.write_csv(_findings_table(inspection), temporary)
        write_json(directory / SUMMARY_FILE, summary)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"--output={directory} cannot be written: {reason}") from error


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Prints counts and findings.

    Args:
      inspection: the finished inspection.
      console: the console to print to, which determines colours and width.
    """
    summary = summarise(inspection)
    console.print(Text(", ".join(f"{name} {value}" for name, value in _facts(summary))))
    part = _verticals_table(inspection)
    table = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(part.header[0], overflow="fold")
    table.add_column(part.header[1], no_wrap=True)
    for name in part.header[2:]:
        # One word per line leaves room for names; figures are never wrapped.
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in part.rows:
        # Text shows brackets in names literally instead of as markup.
        table.add_row(*map(Text, row))
    console.print(table)
    findings = rich.table.Table.grid(padding=(0, 2, 1, 0))
    findings.add_column(no_wrap=True)
    findings.add_column(overflow="fold")
    for finding in inspection.findings:
        lines = Text(finding.what)
        example = inspection.example(finding)
        if example:
            lines.append(f"\nFor example {example}", style="dim")
        lines.append(f"\n-> {finding.advice}")
        findings.add_row(Text(finding.severity, style=_STYLES[finding.severity]), lines)
    console.print(findings)
    console.print(Text(f"{_verdict(summary)}."))


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the figures at the top of the page."""
    images = summary["images"] or {"opened": "none"}
    counts = {
        "rows": summary["rows"],
        "distinct images": summary["distinct_images"],
        "items": summary["items"],
        "verticals": summary["verticals"],
        **{name: images[name] for name in ("opened", "unusable") if name in images},
    }
    numbers = ((name, n if isinstance(n, str) else f"{n:,}") for name, n in counts.items())
    return [("manifest", summary["settings"]["manifest"]), *numbers]


def _verdict(summary: Mapping[str, Any]) -> str:
    """Returns a phrase with the number of findings of each severity."""
    errors, warnings, notes = (
        counted(count, severity) for severity, count in summary["findings_by_severity"].items()
    )
    return f"{errors}, {warnings} and {notes}"


def _verticals_table(inspection: Inspection) -> Table:
    """Returns a table of the counts of each vertical in each split."""
    cells = list(inspection.cells)
    if len(inspection.labels.verticals) > 1:
        of_splits = ([cell for cell in inspection.cells if cell.split == name] for name in SPLITS)
        cells += [_sum_of(some) for some in of_splits if some]
    return Table(
        "Median and most: images per item. Query, gallery, both: images by role. Few images: items "
        f"with fewer than {inspection.config.min_images} images. No answer: queries without "
        "another gallery image of their item. Items answered: items with at least one answered "
        "query.",
        (
            *("vertical", "split", "items", "images", "median", "most", "query", "gallery"),
            *("both", "few images", "no answer", "items answered"),
        ),
        tuple(
            (
                cell.vertical,
                cell.split,
                f"{cell.items:,}",
                f"{cell.images:,}",
                f"{cell.median_images:g}" if cell.median_images else _DASH,
                f"{cell.most_images:,}" if cell.most_images else _DASH,
                f"{cell.query_only:,}",
                f"{cell.gallery_only:,}",
                f"{cell.both:,}",
                f"{cell.few_images:,}",
                _DASH if cell.unanswered is None else f"{cell.unanswered:,}",
                _DASH if cell.answered_items is None else f"{cell.answered_items:,}",
            )
            for cell in cells
        ),
    )


def _sum_of(cells: Sequence[Cell]) -> Cell:
    """Returns cells of one split as one, without a median, since medians cannot be combined."""
    names = ["items", "images", "query_only", "gallery_only", "both", "few_images"]
    if cells[0].split in EVALUATED:
        names += ["queries", "unanswered", "answered_items"]
    sums = {name: sum(getattr(cell, name) for cell in cells) for name in names}
    most = max(cell.most_images for cell in cells)
    return dataclasses.replace(
        cells[0], vertical="(all)", median_images=0, most_images=most, **sums
    )


def summarise(inspection: Inspection) -> dict[str, Any]:
    """Returns all counts of an inspection as values for JSON."""
    settings = dataclasses.asdict(inspection.config)
    settings["manifest"] = Path(inspection.config.manifest).name
    opened = inspection.opened
    severities = [finding.severity for finding in inspection.findings]
    return {
        "settings": settings,
        "rows": inspection.table.num_rows,
        "items": len(inspection.labels.known_items),
        "verticals": len(inspection.labels.verticals),
        "distinct_images": inspection.distinct,
        "findings_by_severity": {name: severities.count(name) for name in SEVERITIES},
        "findings": [
            {
                "code": one.code,
                "severity": one.severity,
                "count": one.count,
                "what": one.what,
                "advice": one.advice,
                "example": inspection.example(one),
                "example_row": int(inspection.file_rows[one.rows[0]]) if len(one.rows) else None,
            }
            for one in inspection.findings
        ],
        "cells": [dataclasses.asdict(cell) for cell in inspection.cells],
        "items_by_images": count_by_images(inspection.labels),
        "images": None
        if opened is None
        else {
            "opened": len(opened.rows),
            "unusable": len(opened.reasons),
            "unusable_by_reason": count_reasons(opened),
            "formats": count_formats(opened),
            "longer_side_px": count_sides(opened),
            "width_by_height": count_shapes(opened),
        },
    }


def _findings_table(inspection: Inspection) -> pa.Table:
    """Returns a table of every row with a finding, built column by column."""
    text = pa.large_string()
    named = inspection.table.select(_COLUMNS)
    file_rows = pa.array(inspection.file_rows, pa.int64())
    parts = []
    # An empty finding first provides the columns even if nothing was found.
    for finding in (Finding("", "", 0, "", ""), *inspection.findings):
        total, details = len(finding.rows), finding.details
        columns = {"finding": pa.array([finding.code] * total, text)}
        columns["severity"] = pa.array([finding.severity] * total, text)
        for prefix, rows in (("", finding.rows), ("other_", finding.others)):
            taken = pa.nulls(total, pa.int64()) if rows is None else pa.array(rows, pa.int64())
            columns[f"{prefix}row"] = file_rows.take(taken)
            for name, column in zip(_COLUMNS, named.take(taken).columns):
                columns[f"{prefix}{name}"] = column.cast(text)
        alike = isinstance(details, str)
        columns["detail"] = pa.array([details] * total if alike else details, text)
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
