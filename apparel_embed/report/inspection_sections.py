"""What the page about a dataset shows, without any HTML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.text import counted
from apparel_embed.data.inspection.counts import EVALUATED, Cell
from apparel_embed.data.inspection.findings import SEVERITIES, Finding
from apparel_embed.data.inspection.inspect import Inspection, ShownPair
from apparel_embed.data.inspection.sheets import MOST_SHEETS, Sheet
from apparel_embed.data.manifest import SPLITS
from apparel_embed.report.inspection_parts import (
    Bars,
    Found,
    InspectionPart,
    InspectionSection,
    PairPicture,
    PairPictures,
    SheetPicture,
)
from apparel_embed.report.parts import Table, data_uri

_DASH = "-"
_LISTED = 20
_ALL = "(all)"


def facts(inspection: Inspection) -> list[tuple[str, str]]:
    """Returns the figures at the head of the page."""
    opened = inspection.opened
    found = [
        ("manifest", Path(inspection.config.manifest).name),
        ("rows", f"{inspection.table.num_rows:,}"),
        ("different pictures", f"{inspection.distinct:,}"),
        ("items", f"{int((inspection.labels.pictures_of_items > 0).sum()):,}"),
        ("verticals", f"{len(inspection.labels.verticals):,}"),
        ("opened", "none" if opened is None else f"{len(opened.rows):,}"),
    ]
    if opened is not None:
        found.append(("unusable", f"{len(opened.reasons):,}"))
    return found


def inspection_sections(inspection: Inspection) -> tuple[InspectionSection, ...]:
    """Returns the sections of the page."""
    return (
        _findings_section(inspection),
        _verticals_section(inspection),
        _items_section(inspection),
        _pictures_section(inspection),
        _sheets_section(inspection),
    )


def verdict(inspection: Inspection) -> str:
    """Returns how many findings of each severity there are, in words."""
    counts = [
        counted(sum(one.severity == severity for one in inspection.findings), severity)
        for severity in SEVERITIES
    ]
    return f"{counts[0]}, {counts[1]} and {counts[2]}"


def verticals_table(inspection: Inspection) -> Table:
    """Returns what there is of each vertical in each split."""
    cells = list(inspection.cells)
    if len(inspection.labels.verticals) > 1:
        cells += [
            _sum_of([cell for cell in cells if cell.split == split])
            for split in SPLITS
            if any(cell.split == split for cell in cells)
        ]
    return Table(
        "Median and most: pictures of an item. Query, gallery, both: pictures by role. Few "
        f"pictures: items with fewer than {inspection.config.min_pictures}. No answer: "
        "queries without another gallery picture of their item. Items answered: those that have a "
        "query with one.",
        (
            "vertical",
            "split",
            "items",
            "pictures",
            "median",
            "most",
            "query",
            "gallery",
            "both",
            "few pictures",
            "no answer",
            "items answered",
        ),
        tuple(_cell_texts(cell) for cell in cells),
    )


def _cell_texts(cell: Cell) -> tuple[str, ...]:
    return (
        cell.vertical,
        cell.split,
        f"{cell.items:,}",
        f"{cell.pictures:,}",
        f"{cell.median_pictures:g}" if cell.median_pictures else _DASH,
        f"{cell.most_pictures:,}" if cell.most_pictures else _DASH,
        f"{cell.query_only:,}",
        f"{cell.gallery_only:,}",
        f"{cell.both:,}",
        f"{cell.few_pictures:,}",
        _DASH if cell.unanswered is None else f"{cell.unanswered:,}",
        _DASH if cell.answered_items is None else f"{cell.answered_items:,}",
    )


def _sum_of(cells: Sequence[Cell]) -> Cell:
    """Returns cells of one split as one; a median of medians would be none."""
    evaluated = cells[0].split in EVALUATED
    names = ("items", "pictures", "query_only", "gallery_only", "both", "few_pictures")
    judged = ("queries", "unanswered", "answered_items")
    sums: dict[str, Any] = {name: sum(getattr(cell, name) for cell in cells) for name in names}
    for name in judged:
        sums[name] = sum(getattr(cell, name) for cell in cells) if evaluated else None
    return Cell(
        vertical=_ALL,
        split=cells[0].split,
        median_pictures=0,
        most_pictures=max(cell.most_pictures for cell in cells),
        **sums,
    )


def _findings_section(inspection: Inspection) -> InspectionSection:
    pairs: dict[str, list[ShownPair]] = {}
    for pair in inspection.pairs:
        pairs.setdefault(pair.code, []).append(pair)
    return InspectionSection(
        "findings",
        "Findings",
        f"{verdict(inspection)}. An error spoils training or makes figures wrong, a warning is "
        "likely a mistake or costs data, a note is good to know. All rows are in findings.csv.",
        tuple(
            _found(inspection, finding, pairs.get(finding.code, ()))
            for finding in inspection.findings
        ),
    )


def _found(inspection: Inspection, finding: Finding, pairs: Sequence[ShownPair]) -> Found:
    listed = None
    if len(finding.rows):
        header = ["row", "other row", "detail"]
        rows = [
            [
                inspection.describe(row),
                _DASH if finding.others is None else inspection.describe(finding.others[number]),
                finding.detail(number),
            ]
            for number, row in enumerate(finding.rows[:_LISTED].tolist())
        ]
        kept = [place for place in range(3) if any(row[place] not in ("", _DASH) for row in rows)]
        listed = Table(
            f"The first {len(rows)} of {len(finding.rows):,}"
            if len(finding.rows) > len(rows)
            else "All of them",
            tuple(header[place] for place in kept),
            tuple(tuple(row[place] for place in kept) for row in rows),
        )
    return Found(
        finding.code,
        finding.severity,
        finding.what,
        finding.advice,
        inspection.example(finding),
        tuple(_pair(inspection, pair) for pair in pairs),
        listed,
        max(0, len(finding.rows) - _LISTED),
    )


def _pair(inspection: Inspection, pair: ShownPair) -> PairPictures:
    first, second = pair.thumbnails
    pictures = (
        _pair_picture(inspection, pair.row, first),
        _pair_picture(inspection, pair.other, second),
    )
    return PairPictures(pictures, pair.detail)


def _pair_picture(inspection: Inspection, row: int, thumbnail: bytes) -> PairPicture:
    image, item, vertical, split = inspection.cells_of(row)
    place = f"row {inspection.file_rows[row]}, {vertical}, {split}"
    return PairPicture(item, place, image, data_uri(thumbnail, "jpeg"))


def _verticals_section(inspection: Inspection) -> InspectionSection:
    return InspectionSection(
        "verticals",
        "Verticals and splits",
        "What there is to learn from, to choose weights by, and to judge by.",
        (verticals_table(inspection),),
    )


def _items_section(inspection: Inspection) -> InspectionSection:
    series = inspection.by_pictures
    return InspectionSection(
        "items",
        "Pictures per item",
        "How many items have so many pictures. Triplets need two or more."
        if series
        else "There are no items.",
        (_bars("Items by their number of pictures", "pictures", series),) if series else (),
    )


def _pictures_section(inspection: Inspection) -> InspectionSection:
    opened, name, title = inspection.opened, "pictures", "Picture files"
    if opened is None:
        return InspectionSection(name, title, "Pictures were not opened (--noopen_pictures).")
    caption = f"{counted(len(opened.rows), 'picture')} of {inspection.distinct:,} opened"
    if len(opened.rows) < inspection.distinct:
        caption += (
            ", a sample: copies are found only where both pictures are in it, and most are not"
        )
    parts: list[InspectionPart] = []
    reasons = opened.count_reasons()
    if reasons:
        parts.append(
            Table(
                "Pictures that prepare would leave out, by reason",
                ("reason", "pictures"),
                tuple((reason, f"{count:,}") for reason, count in reasons.items()),
            )
        )
    if opened.formats:
        parts += [
            _bars("Formats", "format", {"pictures": opened.formats}),
            _bars(
                "Longer side in pixels, cropped to the box",
                "pixels",
                {"pictures": opened.count_sides()},
            ),
            _bars(
                "Shape, cropped to the box",
                "width / height",
                {"pictures": opened.count_shapes()},
            ),
        ]
    return InspectionSection(name, title, f"{caption}.", tuple(parts))


def _bars(caption: str, header: str, series: dict[str, dict[str, int]]) -> Bars:
    classes = list(dict.fromkeys(name for counts in series.values() for name in counts))
    rows = []
    for name in classes:
        values = [(counts.get(name, 0), max(counts.values())) for counts in series.values()]
        rows.append((name, tuple((f"{n:,}", round(100 * n / most, 1)) for n, most in values)))
    return Bars(caption, (header, *series), tuple(rows))


def _sheets_section(inspection: Inspection) -> InspectionSection:
    name, title = "sheets", "Contact sheets"
    if not inspection.sheets:
        return InspectionSection(name, title, "No pictures were asked for, or there are no items.")
    caption = (
        "Items drawn at random, a row each: gallery pictures first (bar on the left), then queries "
        "(bar on the right), with both bars where a picture is both; a cross is a picture that "
        "cannot be used."
    )
    if len(inspection.labels.verticals) > MOST_SHEETS:
        caption += f" Only the {MOST_SHEETS} largest verticals are shown."
    return InspectionSection(
        name, title, caption, tuple(_sheet(sheet, jpeg) for sheet, jpeg in inspection.sheets)
    )


def _sheet(sheet: Sheet, jpeg: bytes) -> SheetPicture:
    return SheetPicture(
        sheet.vertical,
        f"{len(sheet.items)} of {counted(sheet.of_items, 'item')}",
        data_uri(jpeg, "jpeg"),
        tuple(
            (
                item.item,
                f"{item.split}, {counted(item.pictures, 'picture')}"
                + (f", {len(item.rows)} shown" if len(item.rows) < item.pictures else ""),
            )
            for item in sheet.items
        ),
    )
