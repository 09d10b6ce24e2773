"""DeepFashion, Consumer-to-shop Clothes Retrieval Benchmark (Liu et al. 2016, CVPR).

    Eval/list_eval_partition.txt      consumer image, shop image, item, train | val | test
    Anno/list_bbox_consumer2shop.txt  image, clothes type, source type, box
    img/DRESSES/Dress/id_00000001/comsumer_01.jpg     (spelt like this; or Img/img/...)

Layout, columns and counts follow the README that comes with the dataset; the number of items is
reported to be that of its page. The importer was written without the dataset. The README calls the
first line of the list of pairs the number of images: that and the number of pairs are accepted.

An image in many pairs is one row. Consumer images are queries, shop images are the gallery. The
README of version 1.1 searches the shop images of `test`, as evaluation does here. MMFashion and
projects that follow it add those of `val`.

A vertical is named after the two directories below `img`, `tops_blouse`: both `CLOTHING` and `TOPS`
contain a `Blouse`, of different clothes. `--map_verticals` merges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.published import (
    Line,
    find_file,
    find_images,
    read_boxes,
    read_list,
    to_vertical,
)
from apparel_embed.data.importers.rows import Row, Rows, to_table

PUBLISHED: Mapping[str, int] = {"images": 239_557, "pairs": 195_540, "items": 33_881}

_BOXES = "Anno/list_bbox_consumer2shop.txt"
_STATUSES = ("train", "val", "test")
_EXAMPLE = "img/DRESSES/Dress/id_00000001/comsumer_01.jpg"
_SIDES = {"query": "image_pair_name_1", "gallery": "image_pair_name_2"}


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns a row per image in a pair: consumer images in the list's order, then shop images.

    Raises:
      UserError: a file is missing, truncated or wrong, or an image has two items or is in two
        splits; the error names file and row.
    """
    source = find_file(root, "Eval/list_eval_partition.txt", "the Consumer-to-shop benchmark")
    sides = list(_SIDES.values())
    columns = " ".join([*sides, "item_id", "evaluation_status"])
    lines = read_list(root / source, columns, sides, may_count_images=True)
    for line in lines:
        line.choice("evaluation_status", _STATUSES)
    firsts, roles = _images_of_pairs(lines)
    paths = {
        name: line.path_parts(column, like=_EXAMPLE) for name, (line, column) in firsts.items()
    }
    folder = find_images(root, "img", list(dict.fromkeys(path[1] for path in paths.values())))
    boxes, notes = read_boxes(root, _BOXES, "image_name clothes_type source_type", paths)
    others = len(boxes.keys() - paths.keys())
    if others:
        notes.append(f"{_BOXES}: images in no pair, left out: {others}")
    rows = []
    for name, path in paths.items():
        line, _ = firsts[name]
        vertical = to_vertical("_".join(path[1:3]))
        what = ("/".join([folder, *path[1:]]), line["item_id"], vertical)
        protocol = (line["evaluation_status"], roles[name])
        rows.append(Row(*what, *protocol, boxes.get(name), source, line.row))
    counts = {
        "images": len(rows) + others,
        "pairs": len(lines),
        "items": len({row.item_id for row in rows}),
    }
    return Rows(to_table(rows), root, counts, notes)


def _images_of_pairs(lines: list[Line]) -> tuple[dict[str, tuple[Line, str]], dict[str, str]]:
    """Returns the first pair and the column with each image, and the role of each image.

    Raises:
      UserError: an image has different items or splits in two pairs.
    """
    firsts: dict[str, tuple[Line, str]] = {}
    roles: dict[str, str] = {}
    for role, column in _SIDES.items():
        for line in lines:
            name = line[column]
            earliest, _ = firsts.setdefault(name, (line, column))
            for what, reason in (
                ("item_id", "an image belongs to one item"),
                ("evaluation_status", "an image is in one split"),
            ):
                if line[what] != earliest[what]:
                    first, second = sorted((line, earliest), key=lambda line: line.row)
                    raise second.wrong(
                        what, f"{name} has {first[what]!r} in row {first.row}; {reason}"
                    )
            if roles.setdefault(name, role) != role:
                roles[name] = "both"
    return firsts, roles


FORMAT = Format(convert, "Eval/list_eval_partition.txt, img/", PUBLISHED)
