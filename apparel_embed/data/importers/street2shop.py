"""Exact Street2Shop (Kiapour et al. 2015, ICCV, "Where to Buy It").

    meta/json/retrieval_<vertical>.json    [{"photo": 163478, "product": 1}, ...]
    meta/json/train_pairs_<vertical>.json  [{"photo": 2847, "product": 47270,
    meta/json/test_pairs_<vertical>.json     "bbox": {"left", "top", "width", "height"}}, ...]
    images/000002847.jpeg                  as downloaded from the addresses in photos/photos.txt

Layout and fields are those that public readers of the lists rely on; the published counts are the
paper's. A public count of the released lists finds 30,628 training and 8,637 test pairs, 214 less
than the paper's 39,479: that warning is to be expected. The lists themselves were not at hand.

Pictures are found by their number anywhere below `images`, whatever follows the number: one public
downloader writes `000002847.jpeg`, others `2847.JPEG`, `000002847.png` or no extension at all, or
a directory per vertical. Many addresses are dead: rows of pictures that are not there name them as
the first does, and are left out unless missing pictures are to be an error.

- Street pictures, with the box of the garment, are queries; shop pictures are the gallery. One of
  either is as many rows as it shows products.
- An item is a product of a vertical: `dresses-47270`. The lists of each vertical number their
  products on their own.
- Products of training pairs are split `train`, all others `test`: those of test pairs, and those
  in no pair, which only make the gallery larger. Published figures search all shop pictures of the
  vertical, those of training products too; an item is in one split here, and so the gallery is
  somewhat smaller. There is no validation split: hold out validation items when preparing,
  `--val_fraction`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.published_layout import (
    is_finite_number,
    read_annotations,
    zip_hint,
)
from apparel_embed.data.importers.walk import LeftOut, check_name, pictures_below
from apparel_embed.data.manifest import BOX_COLUMNS

PUBLISHED: Mapping[str, int] = {
    "street pictures": 20_357,
    "shop pictures": 404_683,
    "pairs": 39_479,
    "verticals": 11,
}

_META = ("meta/json", "meta/meta/json", "json")
_RETRIEVAL = "retrieval_"
_KINDS = {"street": "query", "shop": "gallery"}
_COLUMNS = ["photo", "product", "split", "role", *BOX_COLUMNS, SOURCE_FILE, SOURCE_ROW]
# Numbers of more digits are none of the lists.
_NUMBER = r"0*(?P<number>[0-9]{1,18})(?:\.[A-Za-z0-9]+)?$"
_BOX_FIELDS = ("left", "top", "width", "height")
_SHOP_SCHEMA = pa.schema([("photo", pa.int64()), ("product", pa.int64())])
_PAIR_SCHEMA = _SHOP_SCHEMA.append(
    pa.field("bbox", pa.struct([(name, pa.float64()) for name in _BOX_FIELDS]))
)


@dataclasses.dataclass(frozen=True)
class Street2ShopOptions:
    """How to read the dataset.

    Attributes:
      images: directory of the downloaded pictures, relative to the dataset's.
    """

    images: str = "images"


@dataclasses.dataclass(frozen=True)
class _Vertical:
    """Rows of one vertical, whose pictures `photo` numbers."""

    table: pa.Table
    pairs: int
    notes: tuple[str, ...]


def convert(root: Path, options: Street2ShopOptions | None = None) -> Imported:
    """Converts the dataset.

    Args:
      root: the directory with `meta/json` and the pictures.
      options: see `Street2ShopOptions`; None for the defaults.

    Returns:
      A row per picture and product, by vertical; in each, training queries, test queries and then
      the gallery, in the lists' order. Rows of pictures that are not there are among them.

    Raises:
      UserError: a list is missing or not as documented, a picture's name is not UTF-8, or there is
        no picture at all; the message names file and element.
    """
    meta = _find_meta(root)
    lists = sorted((root / meta).glob(f"{_RETRIEVAL}*.json"))
    for path in lists:
        check_name(root / meta, path.name)
    verticals = sorted(path.stem[len(_RETRIEVAL) :] for path in lists)
    parts = [_read_vertical(root, meta, vertical) for vertical in verticals]
    table = pa.concat_tables([part.table for part in parts])
    counts = {
        **{f"{kind} pictures": _photos(table, role) for kind, role in _KINDS.items()},
        "pairs": sum(part.pairs for part in parts),
        "verticals": len(verticals),
        "items": pc.count_distinct(table["item_id"]).as_py(),
    }
    notes = [note for part in parts for note in part.notes]
    folder = (options or Street2ShopOptions()).images
    left_out = LeftOut()
    numbers, names = _downloaded(root, folder, left_out)
    found = pc.index_in(table["photo"], value_set=numbers)
    there = table.filter(pc.is_valid(found))
    if not there.num_rows:
        raise UserError(f"{root / folder}: none of the listed pictures is there, by its number")
    for kind, role in _KINDS.items():
        listed = counts[f"{kind} pictures"]
        lost = listed - _photos(there, role)
        if lost:
            notes.append(f"{kind} pictures that are not below {folder}: {lost} of {listed}")
    number = pc.utf8_lpad(table["photo"].cast(pa.string()), 9, "0")
    expected = pc.binary_join_element_wise(f"{folder}/", number, ".jpeg", "")
    table = table.add_column(0, "image", pc.coalesce(names.take(found), expected))
    return Imported(table.drop_columns(["photo"]), counts, (*notes, *left_out.notes()))


def _photos(table: pa.Table, role: str) -> int:
    """Returns the number of different pictures of a role."""
    return pc.count_distinct(table["photo"].filter(pc.equal(table["role"], role))).as_py()


def _find_meta(root: Path) -> str:
    """Returns the directory of the lists, relative to `root`."""
    for place in _META:
        if any((root / place).glob(f"{_RETRIEVAL}*.json")):
            return place
    raise UserError(
        f"{root}: no {_META[0]}/{_RETRIEVAL}<vertical>.json, the dataset's lists; "
        f"is this the directory that holds meta?{zip_hint(root, ['meta'])}"
    )


def _read_vertical(root: Path, meta: str, vertical: str) -> _Vertical:
    """Reads the three lists of a vertical."""
    train, test = (
        _read_list(root, f"{meta}/{split}_pairs_{vertical}.json", _PAIR_SCHEMA)
        for split in ("train", "test")
    )
    shop = _read_list(root, f"{meta}/{_RETRIEVAL}{vertical}.json", _SHOP_SCHEMA)
    pairs = train.num_rows + test.num_rows
    notes: list[str] = []
    torn = pc.is_in(train["product"], value_set=test["product"].combine_chunks())
    train = _leave_out(train, torn, f"{vertical}: training pairs of products of test pairs", notes)
    trained = pc.is_in(shop["product"], value_set=train["product"].combine_chunks())
    street = pa.concat_tables([_labelled(train, "train"), _labelled(test, "test")])
    street = _with_corners(street)
    is_flat = pc.or_(
        pc.less_equal(street["x_max"], street["x_min"]),
        pc.less_equal(street["y_max"], street["y_min"]),
    )
    street = _leave_out(street, is_flat, f"{vertical}: pairs whose box has no area", notes)
    shop = shop.append_column("split", pc.if_else(trained, "train", "test"))
    for name in BOX_COLUMNS:
        shop = shop.append_column(name, pa.nulls(shop.num_rows, pa.float64()))
    roles = (("query", street), ("gallery", shop))
    table = pa.concat_tables(
        [rows.append_column("role", _all(rows, role)).select(_COLUMNS) for role, rows in roles]
    )
    again = _is_repeated(table, ["photo", "product", "role", *BOX_COLUMNS])
    table = _leave_out(table, again, f"{vertical}: entries that are there twice", notes)
    item = pc.binary_join_element_wise(vertical, table["product"].cast(pa.string()), "-")
    position = table.column_names.index("product")
    table = table.set_column(position, "item_id", item)
    table = table.add_column(position + 1, "vertical", _all(table, vertical))
    return _Vertical(table, pairs, tuple(notes))


def _all(table: pa.Table, text: str) -> pa.Array:
    """Returns a column that is `text` in every row."""
    return pa.repeat(pa.scalar(text), table.num_rows)


def _labelled(table: pa.Table, split: str) -> pa.Table:
    return table.append_column("split", _all(table, split))


def _with_corners(street: pa.Table) -> pa.Table:
    """Returns pairs with their box as that of a manifest."""
    left, top, width, height = (pc.struct_field(street["bbox"], name) for name in _BOX_FIELDS)
    corners = (left, top, pc.add(left, width), pc.add(top, height))
    for name, corner in zip(BOX_COLUMNS, corners):
        street = street.append_column(name, corner)
    return street.drop_columns(["bbox"])


def _leave_out(
    table: pa.Table, wrong: pa.ChunkedArray | pa.Array, what: str, notes: list[str]
) -> pa.Table:
    """Returns the rows that are not `wrong`; notes how many were."""
    count = pc.sum(wrong, min_count=0).as_py()
    if count:
        notes.append(f"{what}, left out: {count}")
    return table.filter(pc.invert(wrong))


def _is_repeated(table: pa.Table, keys: list[str]) -> pa.Array:
    """Returns of rows whether one before it has the same values in columns `keys`."""
    numbered = table.select(keys).append_column("index", pa.array(np.arange(table.num_rows)))
    first = numbered.group_by(keys).aggregate([("index", "min")])["index_min"].to_numpy()
    repeated = np.ones(table.num_rows, bool)
    repeated[first] = False
    return pa.array(repeated)


def _read_list(root: Path, name: str, schema: pa.Schema) -> pa.Table:
    """Returns a JSON list of objects as a table, with `source_file` and `source_row`."""
    path = root / name
    entries = read_annotations(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: a list of objects is needed, with {', '.join(schema.names)}")
    for index, entry in enumerate(entries):
        wrong = _what_is_wrong(entry, schema)
        if wrong:
            raise UserError(f"{path}: element {index}: {wrong}")
    if "bbox" in schema.names:
        # Of whole numbers pyarrow takes only those that a float holds exactly.
        entries = [
            {**entry, "bbox": {name: float(entry["bbox"][name]) for name in _BOX_FIELDS}}
            for entry in entries
        ]
    table = pa.Table.from_pylist(entries, schema)
    table = table.append_column(SOURCE_FILE, _all(table, name))
    return table.append_column(SOURCE_ROW, pa.array(np.arange(table.num_rows)))


def _what_is_wrong(entry: Any, schema: pa.Schema) -> str | None:
    """Returns what is wrong with an element of a list; None if nothing is."""
    if not isinstance(entry, dict):
        return f"{entry!r}; an object with {', '.join(schema.names)} is needed"
    for name in ("photo", "product"):
        value = entry.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            return f"{name}: {value!r}; a whole number, 0 or more, is needed"
    if "bbox" in schema.names:
        box = entry.get("bbox")
        numbers = [box.get(name) for name in _BOX_FIELDS] if isinstance(box, dict) else [None]
        if not all(map(is_finite_number, numbers)):
            return f"bbox: {box!r}; {', '.join(_BOX_FIELDS)} in pixels are needed"
    return None


def _is_numbered(name: str) -> bool:
    return re.match(_NUMBER, name) is not None


def _downloaded(root: Path, folder: str, left_out: LeftOut) -> tuple[pa.Array, pa.Array]:
    """Returns numbers of the pictures below a directory, and their paths relative to `root`.

    Of several files of a number, the first by path counts.
    """
    if not (root / folder).is_dir():
        raise UserError(
            f"{root / folder}: no such directory; the dataset comes as addresses, "
            "photos/photos.txt: download its pictures there, each named by its number"
        )
    inside = os.path.relpath(root / folder, root).replace(os.sep, "/")
    paths = pictures_below(root, left_out, "" if inside == "." else inside, _is_numbered)
    names = pa.array(paths, pa.string())
    number = pc.extract_regex(names, f"(?:^|/){_NUMBER}")
    return pc.struct_field(number, "number").cast(pa.int64()), names
