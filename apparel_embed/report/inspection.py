"""Writes what an inspection of a dataset found: a page, a summary for machines, and a list."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path, write_json
from apparel_embed.data.inspection.findings import SEVERITIES, Finding
from apparel_embed.data.inspection.inspect import Inspection
from apparel_embed.report.html import render
from apparel_embed.report.inspection_sections import facts, inspection_sections

PAGE_FILE = "index.html"
SUMMARY_FILE = "summary.json"
FINDINGS_FILE = "findings.csv"
_COLUMNS = ("image", "item_id", "vertical", "split")


def check_output(directory: Path) -> None:
    """Raises a UserError if nothing can be written to the directory of a report, or it not made."""
    try:
        there = next(place for place in (directory, *directory.parents) if place.exists())
        # Permissions alone do not tell: the disk may be read-only.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(f"--output={directory} cannot be written: {error.strerror}") from error


def write_inspection(inspection: Inspection, directory: Path) -> None:
    """Writes `index.html`, `summary.json` and `findings.csv`; the same input, the same bytes.

    Args:
      inspection: what was found.
      directory: where to; what an earlier inspection wrote there is replaced.

    Raises:
      UserError: the directory cannot be made, or a file in it not be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={directory} cannot be made: {error.strerror}") from error
    manifest = Path(inspection.config.manifest).absolute()
    page = render(
        "inspection.html",
        title=f"Health of {manifest.parent.name}/{manifest.name}",
        facts=facts(inspection),
        sections=inspection_sections(inspection),
    )
    try:
        with atomic_path(directory / PAGE_FILE) as temporary:
            temporary.write_text(page, "utf-8")
        with atomic_path(directory / FINDINGS_FILE) as temporary:
            pyarrow.csv.write_csv(_findings_table(inspection), temporary)
        write_json(directory / SUMMARY_FILE, summarise(inspection))
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"--output={directory} cannot be written: {reason}") from error


def summarise(inspection: Inspection) -> dict[str, Any]:
    """Returns all counts of an inspection, as JSON."""
    settings = dataclasses.asdict(inspection.config)
    settings["manifest"] = Path(inspection.config.manifest).name
    opened = inspection.opened
    return {
        "settings": settings,
        "rows": inspection.table.num_rows,
        "items": int((inspection.labels.pictures_of_items > 0).sum()),
        "verticals": len(inspection.labels.verticals),
        "distinct_pictures": inspection.distinct,
        "findings_by_severity": {
            severity: sum(finding.severity == severity for finding in inspection.findings)
            for severity in SEVERITIES
        },
        "findings": [_summarise_finding(inspection, one) for one in inspection.findings],
        "cells": [dataclasses.asdict(cell) for cell in inspection.cells],
        "items_by_pictures": inspection.by_pictures,
        "pictures": None
        if opened is None
        else {
            "opened": len(opened.rows),
            "unusable": len(opened.reasons),
            "unusable_by_reason": opened.count_reasons(),
            "formats": opened.formats,
            "longer_side_px": opened.count_sides(),
            "width_by_height": opened.count_shapes(),
        },
    }


def _summarise_finding(inspection: Inspection, finding: Finding) -> dict[str, Any]:
    rows = inspection.file_rows
    return {
        "code": finding.code,
        "severity": finding.severity,
        "count": finding.count,
        "what": finding.what,
        "advice": finding.advice,
        "example": inspection.example(finding),
        "example_row": int(rows[finding.rows[0]]) if len(finding.rows) else None,
    }


def _findings_table(inspection: Inspection) -> pa.Table:
    """Returns every row that a finding is about, whole columns at a time."""
    text = pa.large_string()
    parts = [
        pa.table(
            {
                "finding": pa.array([], text),
                "severity": pa.array([], text),
                **_cells(inspection, np.empty(0, np.int64), ""),
                **_cells(inspection, np.empty(0, np.int64), "other_"),
                "detail": pa.array([], text),
            }
        )
    ]
    for finding in inspection.findings:
        total = len(finding.rows)
        details = finding.details
        columns = {
            "finding": pa.repeat(pa.scalar(finding.code, text), total),
            "severity": pa.repeat(pa.scalar(finding.severity, text), total),
            **_cells(inspection, finding.rows, ""),
            **_cells(inspection, finding.others, "other_", total),
            "detail": pa.repeat(pa.scalar(details, text), total)
            if isinstance(details, str)
            else pa.array(details, text),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _cells(
    inspection: Inspection, rows: np.ndarray | None, prefix: str, total: int = 0
) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Returns columns that say where rows are and what they say; nulls without rows."""
    text = pa.large_string()
    if rows is None:
        columns = {name: pa.nulls(total, text) for name in _COLUMNS}
        return {
            f"{prefix}row": pa.nulls(total, pa.int64()),
            **{f"{prefix}{name}": column for name, column in columns.items()},
        }
    part = inspection.table.select(_COLUMNS).take(pa.array(rows))
    return {
        f"{prefix}row": pa.array(inspection.file_rows[rows], pa.int64()),
        **{f"{prefix}{name}": part[name].cast(text) for name in _COLUMNS},
    }
