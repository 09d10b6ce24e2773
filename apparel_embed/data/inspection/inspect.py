"""The whole inspection of a dataset: its table, then its pictures."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from apparel_embed.data.columns import codes_of
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.copies import (
    EXACT,
    PAIR_CODES,
    Copies,
    copy_findings,
    crowded_finding,
    find_copies,
)
from apparel_embed.data.inspection.counts import Cell, count_by_pictures, count_cells
from apparel_embed.data.inspection.examine import OPENED_SIDE, look_at, look_at_all
from apparel_embed.data.inspection.findings import SEVERITIES, Finding, worst_first
from apparel_embed.data.inspection.labels import Labels, first_rows
from apparel_embed.data.inspection.names import check_names, check_placeholders
from apparel_embed.data.inspection.pictures import (
    Opened,
    ask_for,
    check_pictures,
    distinct_pictures,
)
from apparel_embed.data.inspection.sheets import Sheet, choose_sheets, draw_sheet
from apparel_embed.data.inspection.table_checks import check_table
from apparel_embed.data.manifest import BOX_COLUMNS, REQUIRED_COLUMNS, read_manifest
from apparel_embed.data.pictures import PictureSettings, RejectedPicture
from apparel_embed.data.text_tables import all_rows_in_file

_SHOWN_PAIRS = 8
_KNOWN_COLUMNS = (*REQUIRED_COLUMNS, "split", "role", *BOX_COLUMNS)


@dataclasses.dataclass(frozen=True, eq=False)
class ShownPair:
    """Two pictures that do not go together.

    Attributes:
      code: of the finding.
      row: of the one in the manifest, from 0.
      other: of the other.
      detail: how far they are apart.
      thumbnails: JPEG of both.
    """

    code: str
    row: int
    other: int
    detail: str
    thumbnails: tuple[bytes, bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """What was found in a dataset.

    Attributes:
      config: what was asked for.
      table: the manifest.
      file_rows: int64 [n], where its rows stand in the file.
      labels: of the rows.
      distinct: number of different pictures, as files and boxes.
      cells: what there is of each vertical in each split.
      by_pictures: split -> class of the number of pictures of an item -> number of items.
      findings: the worst first.
      opened: what is known of the pictures; None if they were not to be opened.
      pairs: of each finding about two pictures some, from the most to the least alike.
      sheets: contact sheets and what is on them, as JPEG.
    """

    config: InspectConfig
    table: pa.Table
    file_rows: np.ndarray
    labels: Labels
    distinct: int
    cells: tuple[Cell, ...]
    by_pictures: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    opened: Opened | None
    pairs: tuple[ShownPair, ...]
    sheets: tuple[tuple[Sheet, bytes], ...]

    def has_finding(self, least: str) -> bool:
        """Returns whether there is a finding of a severity, or of a worse one."""
        bad = SEVERITIES[: SEVERITIES.index(least) + 1]
        return any(finding.severity in bad for finding in self.findings)

    def describe(self, row: int) -> str:
        """Returns in one line where a row is and what it says."""
        image, item, vertical, split = self.cells_of(row)
        return f"row {self.file_rows[row]}: {image} ({item}, {vertical}, {split})"

    def cells_of(self, row: int) -> tuple[str, str, str, str]:
        """Returns image, item, vertical and split of a row."""
        names = ("image", "item_id", "vertical", "split")
        image, item, vertical, split = (self.table[name][row].as_py() for name in names)
        return image, item if item.strip() else "no item", vertical, split

    def example(self, finding: Finding) -> str:
        """Returns the first row that a finding is about, in one line; "" without rows."""
        if not len(finding.rows):
            return ""
        text = self.describe(finding.rows[0])
        if finding.others is not None:
            text += f" and {self.describe(finding.others[0])}"
        return ": ".join(filter(None, (text, finding.detail(0))))


def inspect(config: InspectConfig, processes: int = 0) -> Inspection:
    """Inspects a dataset.

    Args:
      config: what to inspect, and how strictly.
      processes: that open pictures, 0 for one per core; makes no difference to the result. They are
        spawned, so a script that calls this needs `if __name__ == "__main__":`.

    Raises:
      UserError: the manifest is wrong, or a process died.
    """
    table = read_manifest(config.manifest)
    labels = Labels.of(table)
    answered = labels.answered()
    cells = count_cells(labels, answered, config.min_pictures)
    findings = [*check_table(labels, answered, cells, config), *_check_all_names(labels, table)]
    distinct, first = distinct_pictures(table)
    copies = Copies(labels)
    again = np.flatnonzero(first != np.arange(len(first)))
    copies.offer(EXACT, (again, first[again]), np.zeros(len(again), np.int32))
    drawn: list[tuple[Sheet, bytes]] = []
    opened = None
    if config.pictures:
        sheets = choose_sheets(labels, config.sheet_items, config.seed)
        opened = _open(config, table, distinct, first, sheets, processes)
        for sheet in sheets:
            drawn.append((sheet, draw_sheet(sheet, _thumbnails_of(sheet, opened, first))))
        findings += check_pictures(opened, config.min_side)
        crowded = find_copies(copies, opened.looks, config.hash_distance, config.colour_distance)
        if crowded:
            findings.append(crowded_finding(crowded))
    findings += copy_findings(copies)
    ordered = worst_first(findings)
    return Inspection(
        config=config,
        table=table,
        file_rows=all_rows_in_file(Path(config.manifest), table.num_rows),
        labels=labels,
        distinct=len(distinct),
        cells=cells,
        by_pictures=count_by_pictures(labels),
        findings=ordered,
        opened=opened,
        pairs=tuple(_show_pairs(config, table, ordered)) if config.pictures else (),
        sheets=tuple(drawn),
    )


def _check_all_names(labels: Labels, table: pa.Table) -> list[Finding]:
    """Returns what is to be said of the names of verticals, items and whatever else is named."""
    known = np.flatnonzero(labels.pictures_of_items > 0)
    items, rows = labels.items.take(pa.array(known)), labels.first_rows[known]
    vertical, names = codes_of(table["vertical"].cast(pa.large_string()))
    findings = [
        *check_names(names, first_rows(vertical), column="vertical"),
        *check_names(items, rows, column="item_id"),
        *check_placeholders(items, rows, labels.pictures_of_items[known], column="item_id"),
    ]
    # Columns of the dataset's own may be groups to split by.
    of_their_own = [name for name in table.column_names if name not in _KNOWN_COLUMNS]
    for column in ("vertical", *of_their_own):
        codes, names = codes_of(table[column].cast(pa.large_string()))
        counts = np.bincount(codes, minlength=len(names))
        findings += check_placeholders(names, first_rows(codes), counts, column=column)
    return findings


def _settings(config: InspectConfig) -> PictureSettings:
    return PictureSettings(
        max_side=OPENED_SIDE, crop_margin=config.crop_margin, max_pixels=config.max_pixels
    )


def _open(
    config: InspectConfig,
    table: pa.Table,
    distinct: np.ndarray,
    first: np.ndarray,
    sheets: Sequence[Sheet],
    processes: int,
) -> Opened:
    """Opens the pictures, or a sample of them and those of the contact sheets."""
    shown = first[np.array([row for sheet in sheets for row in sheet.rows], np.int64)]
    rows = distinct
    if 0 < config.sample < len(distinct):
        random = np.random.default_rng(config.seed)
        rows = np.union1d(random.choice(distinct, config.sample, replace=False), shown)
    asked = ask_for(table, rows, shown.tolist())
    directory = Path(config.manifest).parent
    results = look_at_all(asked, len(rows), directory, _settings(config), processes)
    return Opened.collect(rows, results)


def _thumbnails_of(sheet: Sheet, opened: Opened, first: np.ndarray) -> dict[int, bytes]:
    """Returns the thumbnails of the rows of a sheet that can be used."""
    found = {row: opened.thumbnails.get(int(first[row])) for row in sheet.rows}
    return {row: thumbnail for row, thumbnail in found.items() if thumbnail}


def _show_pairs(
    config: InspectConfig, table: pa.Table, findings: Sequence[Finding]
) -> Iterator[ShownPair]:
    """Yields some pairs of each finding about two pictures, opened once more."""
    directory = Path(config.manifest).parent
    for finding in findings:
        if finding.code not in PAIR_CODES or finding.others is None:
            continue
        total = len(finding.rows)
        # From the surest to the least sure, so that the threshold can be judged, too.
        for place in np.unique(np.linspace(0, total - 1, _SHOWN_PAIRS).round().astype(int)):
            row, other = int(finding.rows[place]), int(finding.others[place])
            ends = np.sort([row, other])
            thumbnails = {}
            for end, asked in zip(ends.tolist(), ask_for(table, ends, ends.tolist())):
                with contextlib.suppress(RejectedPicture):
                    thumbnails[end] = look_at(asked, directory, _settings(config)).thumbnail
            # Rows of one file that cannot be opened are copies, too.
            if len(thumbnails) == len(ends):
                both = thumbnails[row], thumbnails[other]
                yield ShownPair(finding.code, row, other, finding.detail(int(place)), both)
