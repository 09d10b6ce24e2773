"""One picture that shows the dataset: some items of every vertical, shop and street."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_CELL = 64
_LABEL = 92
_GAP = 8
_HEAD = 18
_ITEMS = 4
_PICTURES = 5


def contact_sheet(rows: Mapping[str, list[list[Path]]], notes: Mapping[str, str]) -> Image.Image:
    """Returns the sheet: a row per vertical, its first items side by side.

    Args:
      rows: for every vertical its items, for every item the paths of its pictures, gallery first.
      notes: a word about every vertical, written below its name.
    """
    items = min(_ITEMS, max(len(group) for group in rows.values()))
    pictures = min(_PICTURES, max(len(item) for group in rows.values() for item in group))
    step = pictures * _CELL + _GAP
    sheet = Image.new("RGB", (_LABEL + items * step, _HEAD + len(rows) * (_CELL + 2)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    pen.text(
        (4, 3), "one item per block: shop pictures (gallery), then street (query)", "black", font
    )
    for line, (vertical, group) in enumerate(rows.items()):
        top = _HEAD + line * (_CELL + 2)
        pen.text((4, top + 14), vertical, "black", font)
        pen.text((4, top + 30), f"same {notes[vertical]}", "grey", font)
        for block, item in enumerate(group[:items]):
            for place, path in enumerate(item[:pictures]):
                with Image.open(path) as image:
                    small = image.resize((_CELL, _CELL), Image.Resampling.BOX)
                sheet.paste(small, (_LABEL + block * step + place * _CELL, top))
    # 256 colours keep the file below a megabyte.
    return sheet.quantize(256, dither=Image.Dither.NONE)
