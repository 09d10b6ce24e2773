"""DeepFashion2 (Ge et al. 2019, CVPR): several garments per image, each with a box.

    train/image/000001.jpg, train/annos/000001.json
    validation/image/..., validation/annos/...

Layout and fields follow the README of `switchablenorms/DeepFashion2`. The published counts are
those of the released part, from its challenge pages. The importer was written without the dataset.

- A row is a garment with `style` above 0; other garments are in no pair of a user and a shop image.
- Garments with the same split, `pair_id`, `style` and category are one item: splits may reuse pair
  numbers, and an item belongs to one vertical. A note counts garments whose category differs.
- `user` images are queries, `shop` images are the gallery.
- `validation` becomes split `test`, since annotations of the test set were not released. Hold out
  validation items when preparing, with `--val_fraction`.
- `bounding_box` is the upper left and the lower right corner, as in the dataset's own conversion to
  COCO; its README calls the first one lower left.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.importers.image_files import READERS, check_name
from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.published import (
    is_finite_number,
    is_whole_number,
    need_field,
    read_json_file,
    to_vertical,
    zip_hint,
)
from apparel_embed.data.importers.rows import Row, Rows, to_table

PUBLISHED: Mapping[str, int] = {
    "verticals": 13,
    "train images": 191_961,
    "train garments": 312_186,
    "validation images": 32_153,
}

_SPLITS = {"train": "train", "validation": "test"}
_ROLES = {"user": "query", "shop": "gallery"}


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns a row per garment with a style, sorted by split, file and garment number.

    Raises:
      UserError: a directory is missing or not unpacked, or a file is not as documented; the error
        names the file and the faulty value.
    """
    rows: list[Row] = []
    counts: dict[str, int] = {}
    notes = []
    for folder, split in _SPLITS.items():
        if not (root / folder / "annos").is_dir():
            hint = zip_hint(root, [folder])
            if hint or folder == "train":
                raise UserError(f"{root}: no annotation directory {folder}/annos.{hint}")
            notes.append(f"{root}: no {folder}/annos: split {split} will be empty")
            continue
        images = _read_split(root, folder, split)
        counts[f"{folder} images"] = len(images)
        counts[f"{folder} garments"] = sum(count for count, _ in images)
        rows += [row for _, garments in images for row in garments]
    boxed = [row for row in rows if row.box]
    counts["verticals"] = len({row.vertical for row in boxed})
    counts["items"] = len({row.item_id for row in boxed})
    if len(boxed) < len(rows):
        notes.append(f"garments whose box has no area, left out: {len(rows) - len(boxed)}")
    verticals = defaultdict(set)
    for row in boxed:
        verticals[row.item_id.rpartition("-")[0]].add(row.vertical)
    inconsistent = sum(len(names) > 1 for names in verticals.values())
    if inconsistent:
        notes.append(
            "garments whose category differs between images, split into one item per "
            f"category: {inconsistent}"
        )
    return Rows(to_table(boxed), root, counts, notes)


def _read_split(root: Path, folder: str, split: str) -> list[tuple[int, list[Row]]]:
    """Returns the number of garments and the rows of each image of a split, sorted by file name."""
    directory = root / folder / "annos"
    # Archives made on macOS contain a hidden `._000001.json` for each file.
    paths = sorted(path for path in directory.glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{directory}: found no *.json; copy or unpack the dataset again")
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda path: _read_image(path, folder, split), paths)
        return list(progress_bar(found, total=len(paths), what=folder, unit="files"))


def _read_image(path: Path, folder: str, split: str) -> tuple[int, list[Row]]:
    """Returns the number of garments in an image, and the rows of those with a style."""
    check_name(path.parent, path.name)
    value = read_json_file(path)
    source = need_field(path, value, "source", _is_source, f"one of {', '.join(_ROLES)}")
    pair = need_field(path, value, "pair_id", is_whole_number, "a whole number")
    keys = sorted(filter(re.compile("item[0-9]+").fullmatch, value), key=lambda key: int(key[4:]))
    rows = []
    for key in keys:
        place, item = f"{path}: {key}", value[key]
        style = need_field(place, item, "style", is_whole_number, "a whole number")
        if style <= 0:
            continue
        category = need_field(place, item, "category_name", _is_name, "a name")
        box = need_field(place, item, "bounding_box", _is_box, "4 numbers in pixels")
        vertical = to_vertical(category)
        x_min, y_min, x_max, y_max = map(float, box)
        has_area = x_max > x_min and y_max > y_min
        rows.append(
            Row(
                image=f"{folder}/image/{path.stem}.jpg",
                item_id=f"{folder}-{pair}-{style}-{vertical}",
                vertical=vertical,
                split=split,
                role=_ROLES[source],
                box=(x_min, y_min, x_max, y_max) if has_area else None,
                source_file=f"{folder}/annos/{path.name}",
                source_row=None,
            )
        )
    return len(keys), rows


def _is_source(value: Any) -> bool:
    return isinstance(value, str) and value in _ROLES


def _is_name(value: Any) -> bool:
    # JSON accepts half of a surrogate pair, but a manifest cannot store it.
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite_number, value))


FORMAT = Format(convert, "train/annos/, train/image/, validation/", PUBLISHED)
