"""Stanford Online Products (Song et al. 2016, "Deep Metric Learning via Lifted Structured ...").

    Ebay_train.txt, Ebay_test.txt     image_id class_id super_class_id path
    bicycle_final/111085122871_0.JPG

Layout, columns and counts follow Open Metric Learning; the importer was written without the data.

A product is an item. A super class is a vertical, named after its directory without `_final`. Each
test image is a query against all others, so its role is both. No validation split is published;
hold out validation items when preparing, with `--val_fraction`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.published import find_file, read_list, to_vertical
from apparel_embed.data.importers.rows import Row, Rows, to_table

PUBLISHED: Mapping[str, int] = {
    "images": 120_053,
    "items": 22_634,
    "train images": 59_551,
    "train items": 11_318,
    "test images": 60_502,
    "test items": 11_316,
    "verticals": 12,
}

_EXAMPLE = "bicycle_final/111085122871_0.JPG"
_NUMBERS = ("image_id", "class_id", "super_class_id")


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns a row per image, training images first, in the lists' order.

    Raises:
      UserError: a list is missing, truncated or wrong; the error names file and row.
    """
    train, test = (_read_split(root, split) for split in ("train", "test"))
    counts = {"verticals": len({row.vertical for row in train + test})}
    for prefix, rows in (("", train + test), ("train ", train), ("test ", test)):
        counts[f"{prefix}images"] = len(rows)
        counts[f"{prefix}items"] = len({row.item_id for row in rows})
    return Rows(to_table(train + test), root, counts)


def _read_split(root: Path, split: str) -> list[Row]:
    """Returns the rows of one list."""
    source = find_file(root, f"Ebay_{split}.txt", "Stanford Online Products")
    rows = []
    for line in read_list(root / source, f"{' '.join(_NUMBERS)} path", ["path"], counted=False):
        for column in _NUMBERS:
            if not re.fullmatch("[0-9]+", line[column]):
                raise line.wrong(column, "expected a whole number")
        folder, _ = line.path_parts("path", like=_EXAMPLE)
        what = (line["path"], line["class_id"], to_vertical(folder.removesuffix("_final")))
        rows.append(Row(*what, split, "both", None, source, line.row))
    return rows


FORMAT = Format(convert, "Ebay_train.txt", PUBLISHED)
