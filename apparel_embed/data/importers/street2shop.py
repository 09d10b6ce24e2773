"""Exact Street2Shop (Kiapour et al. 2015, ICCV, "Where to Buy It").

    meta/json/retrieval_<vertical>.json    [{"photo": 163478, "product": 1}, ...]
    meta/json/train_pairs_<vertical>.json  [{"photo": 2847, "product": 47270,
    meta/json/test_pairs_<vertical>.json     "bbox": {"left", "top", "width", "height"}}, ...]
    images/000002847.jpeg                  as downloaded from the URLs in photos/photos.txt

Layout and fields are those that public readers rely on; the counts are the paper's. The released
lists have 214 fewer pairs, by a public count: expect a warning. Written without the dataset.

Images are found by their number anywhere below `images`, with any extension or none, since download
tools differ. Many URLs are dead: rows whose image is missing are left out by default.

- Street images, with the box of the garment, are queries; shop images are the gallery. Each image
  has a row per product that it shows.
- An item is a product of a vertical, `dresses-47270`: product numbers are per vertical.
- Products of training pairs are split `train`, all others `test`, including those in no pair.
  Published results also search the training products' shop images: the gallery here is smaller.
  There is no validation split: hold out validation items when preparing, with `--val_fraction`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.image_files import LeftOut, check_name, images_below
from apparel_embed.data.importers.layout import SKIP, Format, LayoutOptions
from apparel_embed.data.importers.published import (
    is_finite_number,
    is_whole_number,
    need_field,
    read_json_file,
    zip_hint,
)
from apparel_embed.data.importers.rows import Box, Row, Rows, to_table

PUBLISHED: Mapping[str, int] = {
    "street images": 20_357,
    "shop images": 404_683,
    "pairs": 39_479,
    "verticals": 11,
}

_META = ("meta/json", "meta/meta/json", "json")
_RETRIEVAL = "retrieval_"
_KINDS = {"street": "query", "shop": "gallery"}
# The lists contain no numbers with more digits.
_NUMBER = re.compile(r"0*([0-9]{1,18})(?:\.[A-Za-z0-9]+)?")
_BOX_FIELDS = ("left", "top", "width", "height")


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns a row per image and product, sorted by vertical, including missing images.

    In a vertical, training queries come first, then test queries, then the gallery.

    Raises:
      UserError: a list is missing or not as documented, an image's name is not UTF-8, or the image
        directory is missing; the error names file and element.
    """
    folder = options.image_dir or "images"
    meta = next((place for place in _META if any((root / place).glob(f"{_RETRIEVAL}*.json"))), "")
    if not meta:
        raise UserError(
            f"{root}: no {_META[0]}/{_RETRIEVAL}<vertical>.json, the dataset's lists; "
            f"expected the directory that contains meta.{zip_hint(root, ['meta'])}"
        )
    lists = sorted((root / meta).glob(f"{_RETRIEVAL}*.json"))
    for path in lists:
        check_name(root / meta, path.name)
    verticals = sorted(path.stem[len(_RETRIEVAL) :] for path in lists)
    notes: list[str] = []
    rows: list[Row] = []
    pairs = 0
    for vertical in verticals:
        count, found = _read_vertical(root, meta, vertical, notes)
        pairs += count
        rows += found
    counts = {
        **{
            f"{kind} images": len({row.image for row in rows if row.role == role})
            for kind, role in _KINDS.items()
        },
        "pairs": pairs,
        "verticals": len(verticals),
        "items": len({row.item_id for row in rows}),
    }
    left_out = LeftOut()
    names = _downloaded(root, folder, left_out)
    rows = [
        row._replace(image=names.get(row.image, f"{folder}/{row.image:0>9}.jpeg")) for row in rows
    ]
    return Rows(to_table(rows), root, counts, [*notes, *left_out.notes()])


def _read_vertical(root: Path, meta: str, vertical: str, notes: list[str]) -> tuple[int, list[Row]]:
    """Returns the number of pairs of a vertical, and its rows, with numbers as image names."""
    names = [
        f"{meta}/{name}_{vertical}.json" for name in ("train_pairs", "test_pairs", "retrieval")
    ]
    train, test, shop = (list(_read_list(root, name, name != names[-1])) for name in names)
    tested = {product for _, _, product, _ in test}
    kept = [entry for entry in train if entry[2] not in tested]
    trained = {product for _, _, product, _ in kept}
    rows: dict[tuple[Any, ...], Row] = {}
    entries = [(kept, "query", names[0]), (test, "query", names[1]), (shop, "gallery", names[2])]
    flat = 0
    for part, role, name in entries:
        for index, photo, product, box in part:
            if box and not (box[2] > box[0] and box[3] > box[1]):
                flat += 1
                continue
            split = "train" if product in trained else "test"
            item = (str(photo), f"{vertical}-{product}", vertical, split, role)
            rows.setdefault((photo, product, role, box), Row(*item, box, name, index))
    for what, count in (
        ("training pairs whose product is also in test pairs", len(train) - len(kept)),
        ("pairs whose box has no area", flat),
        ("duplicate entries", len(kept) + len(test) + len(shop) - flat - len(rows)),
    ):
        if count:
            notes.append(f"{vertical}: {what}, left out: {count}")
    return len(train) + len(test), list(rows.values())


def _read_list(root: Path, name: str, is_boxed: bool) -> Iterator[tuple[int, int, int, Box | None]]:
    """Yields index, photo, product and box of the elements of a JSON list."""
    path = root / name
    entries = read_json_file(path)
    if not isinstance(entries, list):
        raise UserError(f"{path}: expected a list of objects with photo and product")
    number, sides = "a whole number, 0 or more", f"{', '.join(_BOX_FIELDS)} in pixels"
    for index, entry in enumerate(entries):
        place = f"{path}: element {index}"
        photo = need_field(place, entry, "photo", _is_number, number)
        product = need_field(place, entry, "product", _is_number, number)
        if is_boxed:
            box = need_field(place, entry, "bbox", _is_box, sides)
            left, top, width, height = (float(box[side]) for side in _BOX_FIELDS)
            yield index, photo, product, (left, top, left + width, top + height)
        else:
            yield index, photo, product, None


def _is_number(value: Any) -> bool:
    return is_whole_number(value) and 0 <= value < 2**63


def _is_box(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_finite_number(value.get(side)) for side in _BOX_FIELDS
    )


def _downloaded(root: Path, folder: str, left_out: LeftOut) -> dict[str, str]:
    """Returns the paths, relative to `root`, of the images below a directory, by image number.

    If several files have the same number, the first path is used.
    """
    if not (root / folder).is_dir():
        raise UserError(
            f"{root / folder}: no such directory; download the images there from the URLs in "
            "photos/photos.txt, each named by its number"
        )
    inside = os.path.relpath(root / folder, root).replace(os.sep, "/")
    names: dict[str, str] = {}
    for path in images_below(root, left_out, "" if inside == "." else inside, _number):
        names.setdefault(_number(path.rpartition("/")[2]), path)
    return names


def _number(name: str) -> str:
    """Returns the number that a file is named by, without leading zeros; "" if it has none."""
    found = _NUMBER.fullmatch(name)
    return str(int(found[1])) if found else ""


FORMAT = Format(convert, "meta/json/, images/", PUBLISHED, missing=SKIP)
