"""Inspects a dataset: its table, then its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.copies import (
    EXACT,
    PAIR_CODES,
    Copies,
    copy_findings,
    find_copies,
)
from apparel_embed.data.inspection.examine import (
    Opened,
    distinct_images,
    look_at,
    make_thumbnail,
    open_all,
)
from apparel_embed.data.inspection.findings import SEVERITIES, Finding
from apparel_embed.data.inspection.images import check_images
from apparel_embed.data.inspection.labels import Cell, Labels, count_cells
from apparel_embed.data.inspection.names import check_all_names
from apparel_embed.data.inspection.table_checks import check_table
from apparel_embed.data.manifest import SPLITS, read_manifest
from apparel_embed.data.text_tables import all_rows_in_file

MOST_SHEETS = 60
"""Number of verticals with a contact sheet; bounds the size of the report."""

_SHEET_IMAGES = 8
_SHOWN_PAIRS = 8


@dataclasses.dataclass(frozen=True)
class SheetItem:
    """A line of a contact sheet: an item, its number of images, and the rows of those shown."""

    item: str
    split: str
    images: int
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The items drawn for a vertical, and the number of items that it has."""

    vertical: str
    items: tuple[SheetItem, ...]
    of_items: int


@dataclasses.dataclass(frozen=True)
class ShownPair:
    """Two images of a finding, given by their rows, and the difference between them."""

    code: str
    rows: tuple[int, int]
    detail: str


@dataclasses.dataclass(frozen=True, eq=False)
class Inspection:
    """The result of an inspection.

    Attributes:
      table: the manifest.
      file_rows: int64 [n], the numbers of its rows in the file.
      distinct: number of distinct images, as pairs of file and box.
      findings: the most severe first.
      opened: the opened images; None if images were not opened.
      pairs: examples of each finding about two images, from the most to the least similar.
      thumbnails: JPEG by row, for the usable rows of pairs and sheets.
    """

    config: InspectConfig
    table: pa.Table
    file_rows: np.ndarray
    labels: Labels
    distinct: int
    cells: tuple[Cell, ...]
    findings: tuple[Finding, ...]
    opened: Opened | None
    pairs: tuple[ShownPair, ...]
    sheets: tuple[Sheet, ...]
    thumbnails: dict[int, bytes]

    def has_finding(self, least: str) -> bool:
        """Returns whether a finding has at least the severity `least`."""
        bad = SEVERITIES[: SEVERITIES.index(least) + 1]
        return any(finding.severity in bad for finding in self.findings)

    def describe(self, row: int) -> str:
        """Returns a row's number and content in one line."""
        image, item, vertical, split = self.cells_of(row)
        return f"row {self.file_rows[row]}: {image} ({item}, {vertical}, {split})"

    def cells_of(self, row: int) -> tuple[str, str, str, str]:
        """Returns image, item, vertical and split of a row."""
        names = ("image", "item_id", "vertical", "split")
        image, item, vertical, split = (self.table[name][row].as_py() for name in names)
        return image, item if item.strip() else "no item", vertical, split

    def example(self, finding: Finding) -> str:
        """Returns the first row of a finding in one line; "" if it has no rows."""
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
      processes: number of processes that open images, 0 for one per core; the result does not
        depend on it. They are spawned, so a calling script needs `if __name__ == "__main__":`.

    Raises:
      UserError: the manifest is wrong, or a process died.
    """
    table = read_manifest(config.manifest)
    labels = Labels.of(table)
    cells = count_cells(labels, config.min_images)
    findings = [*check_table(labels, cells, config), *check_all_names(labels, table)]
    first = distinct_images(table)
    distinct = np.flatnonzero(first == np.arange(len(first)))
    copies = Copies(labels)
    again = np.flatnonzero(first != np.arange(len(first)))
    copies.offer(EXACT, (again, first[again]), np.zeros(len(again), np.int32))
    crowded, opened = 0, None
    sheets: tuple[Sheet, ...] = ()
    if config.images:
        sheets = choose_sheets(labels, config.sheet_items, config.seed)
        rows = _rows_to_open(config, distinct, first[_rows_of(sheets)])
        opened = Opened.collect(rows, open_all(look_at, table, rows, config, processes))
        findings += check_images(opened, config.min_side)
        crowded = find_copies(copies, opened, config.hash_distance, config.colour_distance)
    findings += copy_findings(copies, crowded)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    pairs = list(_some_pairs(findings)) if config.images else []
    shown = np.union1d(_rows_of(sheets), np.array([pair.rows for pair in pairs], int).ravel())
    thumbnails = _thumbnails(config, table, shown, first[shown], processes) if len(shown) else {}
    return Inspection(
        config=config,
        table=table,
        file_rows=all_rows_in_file(Path(config.manifest), table.num_rows),
        labels=labels,
        distinct=len(distinct),
        cells=cells,
        findings=tuple(findings),
        opened=opened,
        # Rows that share an unreadable file are copies too, but have no thumbnails.
        pairs=tuple(pair for pair in pairs if thumbnails.keys() >= set(pair.rows)),
        sheets=sheets,
        thumbnails=thumbnails,
    )


def choose_sheets(labels: Labels, items: int, seed: int) -> tuple[Sheet, ...]:
    """Draws the items to show for each vertical.

    Args:
      labels: the labels of the rows.
      items: number of items per vertical.
      seed: seed of the draw.

    Returns:
      A sheet for each of the MOST_SHEETS verticals with the most items, sorted by name.
    """
    known = labels.known_items
    vertical = labels.vertical[labels.first_rows[known]]
    counts = np.bincount(vertical, minlength=len(labels.verticals))
    largest = np.argsort(-counts, kind="stable")[:MOST_SHEETS]
    # Gallery images first: they are the shop's own.
    order = np.lexsort((~labels.is_gallery, labels.item))
    ordered = labels.item[order]

    def line(item: int) -> SheetItem:
        low, high = np.searchsorted(ordered, [item, item + 1])
        rows = tuple(order[low:high].tolist())
        split = SPLITS[labels.split[rows[0]]]
        return SheetItem(labels.items[item].as_py(), split, len(rows), rows[:_SHEET_IMAGES])

    sheets = []
    for number in sorted(largest[counts[largest] > 0].tolist() if items else []):
        random = np.random.default_rng([seed, number])
        of_vertical = known[vertical == number]
        chosen = np.sort(random.permutation(of_vertical)[:items])
        lines = tuple(line(item) for item in chosen.tolist())
        sheets.append(Sheet(labels.verticals[number], lines, len(of_vertical)))
    return tuple(sheets)


def _rows_of(sheets: Sequence[Sheet]) -> np.ndarray:
    return np.array([row for sheet in sheets for item in sheet.items for row in item.rows], int)


def _rows_to_open(config: InspectConfig, distinct: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Returns the rows of all images, or of a sample and the images shown."""
    if not 0 < config.sample < len(distinct):
        return distinct
    random = np.random.default_rng(config.seed)
    return np.union1d(random.choice(distinct, config.sample, replace=False), shown)


def _thumbnails(
    config: InspectConfig, table: pa.Table, rows: np.ndarray, sources: np.ndarray, processes: int
) -> dict[int, bytes]:
    """Returns thumbnails of the usable rows; `sources` are the first rows of their images."""
    distinct, place = np.unique(sources, return_inverse=True)
    found = list(open_all(make_thumbnail, table, distinct, config, processes, threads=True))
    pairs = ((row, found[number]) for row, number in zip(rows.tolist(), place.tolist()))
    return {row: small for row, small in pairs if isinstance(small, bytes)}


def _some_pairs(findings: Sequence[Finding]) -> Iterator[ShownPair]:
    """Yields some pairs of each finding about two images."""
    for finding in findings:
        if finding.code not in PAIR_CODES or finding.others is None:
            continue
        ends = np.stack([finding.rows, finding.others], axis=1).tolist()
        # From the most to the least similar, to show what the threshold lets through.
        for place in np.unique(np.linspace(0, len(ends) - 1, _SHOWN_PAIRS).round().astype(int)):
            row, other = ends[place]
            yield ShownPair(finding.code, (row, other), finding.detail(int(place)))
