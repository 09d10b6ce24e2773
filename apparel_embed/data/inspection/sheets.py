"""Contact sheets: what the items of a vertical look like."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from apparel_embed.data.inspection.examine import THUMBNAIL_SIDE
from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.manifest import SPLITS

CELL = THUMBNAIL_SIDE
_PICTURES = 8
# Bounds the size of a page about a dataset of very many verticals.
MOST_SHEETS = 60
_MOST_BYTES = 300_000
_QUALITIES = (85, 70, 50, 30, 10)
_GROUND = (246, 246, 246)
# Told apart with any colour vision, and by where they are.
GALLERY_COLOUR = "#0072b2"
QUERY_COLOUR = "#e69f00"
_BAR = 4


@dataclasses.dataclass(frozen=True)
class SheetItem:
    """A line of a contact sheet.

    Attributes:
      item: its id.
      split: its split.
      pictures: how many it has.
      rows: of the pictures shown in the manifest, gallery first.
      queries: of each picture shown whether it is a query.
      gallery: of each picture shown whether it is in the gallery.
    """

    item: str
    split: str
    pictures: int
    rows: tuple[int, ...]
    queries: tuple[bool, ...]
    gallery: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The items that stand for a vertical.

    Attributes:
      vertical: its name.
      items: in the order shown.
      of_items: out of how many they were drawn.
    """

    vertical: str
    items: tuple[SheetItem, ...]
    of_items: int

    @property
    def rows(self) -> tuple[int, ...]:
        """All rows shown."""
        return tuple(row for item in self.items for row in item.rows)


def choose_sheets(labels: Labels, items: int, seed: int) -> tuple[Sheet, ...]:
    """Draws the items to show of each vertical.

    Args:
      labels: of the rows.
      items: how many of each vertical.
      seed: of the choice.

    Returns:
      A sheet for each vertical that has items, the MOST_SHEETS with most items, by name.
    """
    known = np.flatnonzero(labels.pictures_of_items > 0)
    vertical = labels.vertical[labels.first_rows[known]]
    counts = np.bincount(vertical, minlength=len(labels.verticals))
    largest = np.argsort(-counts, kind="stable")[:MOST_SHEETS]
    order = np.argsort(labels.item, kind="stable")
    ordered = labels.item[order]
    sheets = []
    for number in sorted(largest[counts[largest] > 0].tolist() if items else []):
        random = np.random.default_rng([seed, number])
        of_vertical = known[vertical == number]
        chosen = np.sort(random.permutation(of_vertical)[:items])
        lines = []
        for item in chosen.tolist():
            low, high = np.searchsorted(ordered, [item, item + 1])
            rows = order[low:high]
            # Gallery before queries, as a shop shows its picture first.
            rows = rows[np.argsort(~labels.is_gallery[rows], kind="stable")]
            shown = rows[:_PICTURES]
            lines.append(
                SheetItem(
                    item=labels.items[item].as_py(),
                    split=SPLITS[labels.split[rows[0]]],
                    pictures=len(rows),
                    rows=tuple(shown.tolist()),
                    queries=tuple(labels.is_query[shown].tolist()),
                    gallery=tuple(labels.is_gallery[shown].tolist()),
                )
            )
        sheets.append(Sheet(labels.verticals[number], tuple(lines), len(of_vertical)))
    return tuple(sheets)


def draw_sheet(sheet: Sheet, thumbnails: Mapping[int, bytes]) -> bytes:
    """Draws a contact sheet: a row of CELL pixels for each item, without text.

    Pictures of the gallery have a blue bar at the left of their lower edge, queries an orange one
    at its right; pictures that cannot be used are a cross.

    Args:
      sheet: what to show.
      thumbnails: JPEG of the rows that can be used.

    Returns:
      JPEG of at most 300 kB.
    """
    width = max(len(item.rows) for item in sheet.items) * CELL
    image = Image.new("RGB", (width, len(sheet.items) * CELL), "white")
    pen = ImageDraw.Draw(image)
    for line, item in enumerate(sheet.items):
        for place, row in enumerate(item.rows):
            _draw_cell(image, pen, place * CELL, line * CELL, thumbnails.get(row))
            left, bottom = place * CELL, (line + 1) * CELL - 3
            for told, colour, start in (
                (item.gallery[place], GALLERY_COLOUR, left + 2),
                (item.queries[place], QUERY_COLOUR, left + CELL // 2),
            ):
                if told:
                    end = start + CELL // 2 - 3
                    pen.rectangle((start, bottom - _BAR, end, bottom), fill=colour)
    return _small_jpeg(image)


def _draw_cell(
    image: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int, thumbnail: bytes | None
) -> None:
    """Draws one picture, or that it cannot be used."""
    ends = (left + 1, top + 1, left + CELL - 2, top + CELL - 2)
    pen.rectangle(ends, fill=_GROUND)
    if thumbnail is None:
        pen.line(ends, fill="#b00020", width=2)
        pen.line((ends[0], ends[3], ends[2], ends[1]), fill="#b00020", width=2)
        return
    with Image.open(io.BytesIO(thumbnail)) as small:
        small.thumbnail((CELL - 4, CELL - 12))
        place = (left + (CELL - small.width) // 2, top + (CELL - 10 - small.height) // 2 + 1)
        image.paste(small, place)


def _small_jpeg(image: Image.Image) -> bytes:
    """Returns the picture as JPEG of the first quality that makes it small enough."""
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= _MOST_BYTES:
            break
    return file.getvalue()
