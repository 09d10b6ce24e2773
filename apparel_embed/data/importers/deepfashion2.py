"""DeepFashion2 (Ge et al. 2019, CVPR): several garments in a picture, each with a box.

    train/image/000001.jpg, train/annos/000001.json
    validation/image/..., validation/annos/...

Layout and fields are those of the README of its repository, `switchablenorms/DeepFashion2`; the
published counts are those of the released part, which the pages of its challenge give (the paper
counts more than was released). The dataset itself was not at hand.

- A row is a garment with `style` above 0: only those are in a user's and in a shop's picture, says
  the README. Others, and styles that occur once, have no counterpart.
- An item is what has the same `pair_id` and `style`. Nothing says that `train` and `validation`
  number their pairs in common, so an item's name begins with the split's. It ends in the category,
  since an item belongs to one vertical here; where the category of one garment differs between
  pictures, it becomes several items, and a note says how many.
- `user` pictures are queries, `shop` pictures the gallery.
- `validation` becomes split `test`: annotations of the test set were not released, so that
  published figures are those of the validation set. Hold out validation items when preparing,
  `--val_fraction`.
- `bounding_box` is x and y of two corners; the README calls the first lower left, but its own
  conversion to COCO takes it for the upper left one, as is done here.
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
from apparel_embed.data.importers.imported import Format, Imported, LayoutOptions, Row, to_table
from apparel_embed.data.importers.published import (
    fields_of,
    is_finite_number,
    is_whole_number,
    read_json_file,
    to_vertical,
    zip_hint,
)

PUBLISHED: Mapping[str, int] = {
    "verticals": 13,
    "train pictures": 191_961,
    "train garments": 312_186,
    "validation pictures": 32_153,
}

_SPLITS = {"train": "train", "validation": "test"}
_ROLES = {"user": "query", "shop": "gallery"}


def convert(root: Path, options: LayoutOptions) -> Imported:
    """Returns a row per garment that has a style, by split, file and number of the garment.

    Raises:
      UserError: a directory is missing or not unpacked, or a file is not as documented; the
        message names the file and what is wrong in it.
    """
    rows: list[Row] = []
    counts: dict[str, int] = {}
    notes = []
    for folder, split in _SPLITS.items():
        if not (root / folder / "annos").is_dir():
            hint = zip_hint(root, [folder])
            if hint or folder == "train":
                raise UserError(f"{root}: no {folder}/annos, where the annotations are.{hint}")
            notes.append(f"{root}: no {folder}/annos: there is no split {split}")
            continue
        images = _read_split(root, folder, split)
        counts[f"{folder} pictures"] = len(images)
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
    torn = sum(len(names) > 1 for names in verticals.values())
    if torn:
        notes.append(
            "garments whose category differs between images, made one item for each "
            f"category: {torn}"
        )
    return Imported(to_table(boxed), counts, tuple(notes))


def _read_split(root: Path, folder: str, split: str) -> list[tuple[int, list[Row]]]:
    """Returns for every image of a split, by name, its garments' number and those with a style."""
    directory = root / folder / "annos"
    # Archives made on macOS hold a hidden `._000001.json` for each file.
    paths = sorted(path for path in directory.glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{directory}: no *.json; it was not copied or unpacked whole")
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(lambda path: _read_image(path, folder, split), paths)
        return list(progress_bar(found, total=len(paths), what=folder, unit="files"))


def _read_image(path: Path, folder: str, split: str) -> tuple[int, list[Row]]:
    """Returns the number of garments in an image, and rows of those with a style."""
    check_name(path.parent, path.name)
    value = read_json_file(path)
    if not isinstance(value, dict):
        raise _wrong(path, "", value, "an object with pair_id, source, item1 is needed")
    source, pair = fields_of(value, "source", "pair_id")
    if not isinstance(source, str) or source not in _ROLES:
        raise _wrong(path, "source", source, f"allowed: {', '.join(_ROLES)}")
    if not is_whole_number(pair):
        raise _wrong(path, "pair_id", pair, "a whole number is needed")
    keys = sorted(filter(re.compile("item[0-9]+").fullmatch, value), key=lambda key: int(key[4:]))
    rows = []
    for key in keys:
        item = value[key]
        _check_garment(path, key, item)
        if item["style"] > 0:
            vertical = to_vertical(item["category_name"])
            x_min, y_min, x_max, y_max = map(float, item["bounding_box"])
            has_area = x_max > x_min and y_max > y_min
            rows.append(
                Row(
                    image=f"{folder}/image/{path.stem}.jpg",
                    item_id=f"{folder}-{pair}-{item['style']}-{vertical}",
                    vertical=vertical,
                    split=split,
                    role=_ROLES[source],
                    box=(x_min, y_min, x_max, y_max) if has_area else None,
                    source_file=f"{folder}/annos/{path.name}",
                    source_row=None,
                )
            )
    return len(keys), rows


def _check_garment(path: Path, key: str, item: Any) -> None:
    """Raises a UserError if an entry is no garment, or one with a style that lacks something."""
    if not isinstance(item, dict):
        raise _wrong(path, key, item, "an object with style and box is needed")
    style, name, box = fields_of(item, "style", "category_name", "bounding_box")
    if not is_whole_number(style):
        raise _wrong(path, f"{key}.style", style, "a whole number is needed")
    if style <= 0:
        return
    # Half of a surrogate pair is a text for JSON, but none that could be written to a manifest.
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise _wrong(path, f"{key}.category_name", name, "a name is needed")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite_number, box)):
        raise _wrong(path, f"{key}.bounding_box", box, "4 numbers of pixels are needed")


def _wrong(path: Path, field: str, value: Any, needed: str) -> UserError:
    """Returns the error for a field, whose value it shows at bearable length."""
    text = "missing" if value is None else repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return UserError(": ".join(filter(None, [str(path), field, f"{text}; {needed}"])))


FORMAT = Format(convert, "train/annos/, train/image/, validation/", PUBLISHED)
