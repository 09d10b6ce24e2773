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

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.published_layout import (
    is_finite_number,
    read_annotations,
    to_vertical,
    zip_hint,
)
from apparel_embed.data.importers.walk import check_name
from apparel_embed.data.manifest import BOX_COLUMNS

PUBLISHED: Mapping[str, int] = {
    "verticals": 13,
    "train pictures": 191_961,
    "train garments": 312_186,
    "validation pictures": 32_153,
}

_SPLITS = {"train": "train", "validation": "test"}
_ROLES = {"user": "query", "shop": "gallery"}
# Files are small and many: threads wait for the disk in turn.
_READERS = 16

_Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class _Garment:
    """A garment with a style: a row, unless its box has no area."""

    category: str
    style: int
    box: _Box | None


@dataclasses.dataclass(frozen=True)
class _Picture:
    """What a file says of one picture; `garments` are those without a style too."""

    name: str
    role: str
    pair_id: int
    garments: int
    rows: tuple[_Garment, ...]


def convert(root: Path, options: None = None) -> Imported:
    """Converts the dataset.

    Args:
      root: the directory with `train` and `validation`; without `validation` there is no test
        split.
      options: there are none.

    Returns:
      A row per garment that has a style, by split, file and number of the garment.

    Raises:
      UserError: a directory is missing or not unpacked, or a file is not as documented; the
        message names the file and what is wrong in it.
    """
    tables, counts, notes, flat = [], {}, [], 0
    for folder, split in _SPLITS.items():
        if not _is_there(root, folder):
            notes.append(f"{root}: no {folder}/annos: there is no split {split}")
            continue
        pictures = _read_pictures(root / folder / "annos")
        tables.append(_rows(pictures, folder, split))
        counts[f"{folder} pictures"] = len(pictures)
        counts[f"{folder} garments"] = sum(picture.garments for picture in pictures)
        flat += sum(row.box is None for picture in pictures for row in picture.rows)
    table = pa.concat_tables(tables)
    counts["verticals"] = pc.count_distinct(table["vertical"]).as_py()
    counts["items"] = pc.count_distinct(table["item_id"]).as_py()
    if flat:
        notes.append(f"garments whose box has no area, left out: {flat}")
    torn = table.group_by("pair").aggregate([("vertical", "count_distinct")])
    torn = pc.sum(pc.greater(torn["vertical_count_distinct"], 1), min_count=0).as_py()
    if torn:
        notes.append(
            "garments whose category differs between pictures, made one item for each "
            f"category: {torn}"
        )
    return Imported(table.drop_columns(["pair"]), counts, tuple(notes))


def _is_there(root: Path, folder: str) -> bool:
    """Returns whether a part of the dataset is there; raises a UserError if it ought to be."""
    if (root / folder / "annos").is_dir():
        return True
    hint = zip_hint(root, [folder])
    if hint or folder == "train":
        raise UserError(f"{root}: no {folder}/annos, where the annotations are.{hint}")
    return False


def _rows(pictures: Sequence[_Picture], folder: str, split: str) -> pa.Table:
    """Returns the rows of a split, and in column `pair` what its items are made of."""
    found = [(picture, garment) for picture in pictures for garment in picture.rows if garment.box]
    text = pa.string()
    category = pa.chunked_array([pa.array([garment.category for _, garment in found], text)])
    vertical = to_vertical(category)
    pair = pa.array([f"{folder}-{one.pair_id}-{garment.style}" for one, garment in found], text)
    edges = zip(*(garment.box for _, garment in found)) if found else [()] * len(BOX_COLUMNS)
    return pa.table(
        {
            "image": pa.array([f"{folder}/image/{one.name}.jpg" for one, _ in found], text),
            "item_id": pc.binary_join_element_wise(pair, vertical, "-"),
            "vertical": vertical,
            "split": pa.array([split] * len(found), text),
            "role": pa.array([one.role for one, _ in found], text),
            **{name: pa.array(edge, pa.float64()) for name, edge in zip(BOX_COLUMNS, edges)},
            SOURCE_FILE: pa.array([f"{folder}/annos/{one.name}.json" for one, _ in found], text),
            SOURCE_ROW: pa.nulls(len(found), pa.int64()),
            "pair": pair,
        }
    )


def _read_pictures(directory: Path) -> list[_Picture]:
    """Returns what the files of a directory say, sorted by their names."""
    # Archives made on macOS hold a hidden `._000001.json` for each file.
    paths = sorted(path for path in directory.glob("*.json") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{directory}: no *.json; it was not copied or unpacked whole")
    with ThreadPoolExecutor(_READERS) as readers:
        found = readers.map(_read_picture, paths)
        bar = progress_bar(found, total=len(paths), what=directory.parent.name, unit="files")
        return list(bar)


def _read_picture(path: Path) -> _Picture:
    """Returns what one file says; raises a UserError if it is not as documented."""
    check_name(path.parent, path.name)
    value = read_annotations(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: {_shown(value)}; an object with pair_id, source, item1 is needed")
    source = value.get("source")
    if not isinstance(source, str) or source not in _ROLES:
        raise UserError(f"{path}: source: {_shown(source)}; allowed: {', '.join(_ROLES)}")
    pair_id = _whole_number(path, "pair_id", value.get("pair_id"))
    items = {key: item for key, item in value.items() if re.fullmatch(r"item[0-9]+", key)}
    keys = sorted(items, key=lambda key: int(key[len("item") :]))
    rows = tuple(row for key in keys for row in _garments(path, key, items[key]))
    return _Picture(path.stem, _ROLES[source], pair_id, len(items), rows)


def _garments(path: Path, key: str, item: Any) -> Iterator[_Garment]:
    """Yields the garment of an entry if it has a style."""
    if not isinstance(item, dict):
        raise UserError(f"{path}: {key}: {_shown(item)}; an object with style and box is needed")
    style = _whole_number(path, f"{key}.style", item.get("style"))
    if style <= 0:
        return
    category = item.get("category_name")
    # Half of a surrogate pair is a text for JSON, but none that could be written to a manifest.
    if not isinstance(category, str) or not category.strip() or not category.isprintable():
        raise UserError(f"{path}: {key}.category_name: {_shown(category)}; a name is needed")
    box = item.get("bounding_box")
    if (
        not isinstance(box, list)
        or len(box) != len(BOX_COLUMNS)
        or not all(map(is_finite_number, box))
    ):
        raise UserError(
            f"{path}: {key}.bounding_box: {_shown(box)}; 4 numbers of pixels are needed"
        )
    x_min, y_min, x_max, y_max = map(float, box)
    has_area = x_max > x_min and y_max > y_min
    yield _Garment(category, style, (x_min, y_min, x_max, y_max) if has_area else None)


def _whole_number(path: Path, name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"{path}: {name}: {_shown(value)}; a whole number is needed")
    return value


def _shown(value: Any) -> str:
    """Returns a value as it stands in an error, of bearable length."""
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
