"""DeepFashion, Consumer-to-shop Clothes Retrieval Benchmark (Liu et al. 2016, CVPR).

    Eval/list_eval_partition.txt      consumer picture, shop picture, item, train | val | test
    Anno/list_bbox_consumer2shop.txt  picture, clothes type, source type, box
    img/DRESSES/Dress/id_00000001/comsumer_01.jpg     (so spelt; or Img/img/...)

Layout, columns and published counts are those of the README that comes with the dataset (239,557
pictures, 195,540 pairs); that the first picture of a pair is the consumer's is what public readers
of the list rely on. The number of items, 33,881, is said to be that of the dataset's page, which
could not be reached. The dataset itself was not at hand either: the README calls the first line of
the pairs' list the number of images, so that both this and the number of pairs are accepted there.

A picture is in many pairs and is one row all the same. Consumers' pictures are queries, shops' are
the gallery. The README of version 1.1 searches the shop pictures of `test`, as an evaluation
here does; MMFashion's documentation adds those of `val`, and other projects follow it.

A vertical is a directory of the path and the one above it, `tops_blouse`: both `CLOTHING` and
`TOPS` hold a `Blouse`, `T_Shirt` and more, which are not the same clothes. Merge what you like
when importing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.list_files import ListFile, boxes_of, read_list
from apparel_embed.data.importers.published_layout import (
    find_file,
    find_optional_file,
    find_pictures,
    to_vertical,
)

PUBLISHED: Mapping[str, int] = {"pictures": 239_557, "pairs": 195_540, "items": 33_881}

_NAME = "the Consumer-to-shop benchmark"
_PARTITION = "list_eval_partition.txt"
_BOXES = "list_bbox_consumer2shop.txt"
_STATUSES = ("train", "val", "test")
_EXAMPLE = "img/DRESSES/Dress/id_00000001/comsumer_01.jpg"
_PATH_PARTS = ("department", "category", "item", "picture")
_STREET, _SHOP = "image_pair_name_1", "image_pair_name_2"
_COLUMNS = {_STREET: True, _SHOP: True, "item_id": False, "evaluation_status": False}
_BOX_COLUMNS = {
    "image_name": True,
    **dict.fromkeys(("clothes_type", "source_type", "x_1", "y_1", "x_2", "y_2"), False),
}


def convert(root: Path, options: None = None) -> Imported:
    """Converts the benchmark.

    Args:
      root: the directory with `Eval`, `Anno` and `img` (or `Img`).
      options: there are none.

    Returns:
      A row per picture of a pair: consumers' pictures in the list's order, then shops'.

    Raises:
      UserError: a file is missing, cut short or wrong, or a picture has two items or is in two
        splits; the message names file and row.
    """
    partition = find_file(root, [f"Eval/{_PARTITION}", f"eval/{_PARTITION}", _PARTITION], _NAME)
    listed = read_list(root / partition, _COLUMNS, recount=_count_pictures)
    listed.refuse_other_than("evaluation_status", _STATUSES)
    street, shop = (
        listed.split_paths(column, "img/", _PATH_PARTS, _EXAMPLE) for column in (_STREET, _SHOP)
    )
    paths, rows = _pictures_of_pairs(listed, pa.concat_tables([street, shop]))
    folder = find_pictures(root, "img", paths["department"].unique().to_pylist())
    boxes, others, notes = _boxes(root, rows["name"])
    vertical = pc.binary_join_element_wise(paths["department"], paths["category"], "_")
    table = pa.table(
        {
            "image": pc.replace_substring_regex(rows["name"], "^img/", f"{folder}/"),
            "item_id": rows["item_id"],
            "vertical": to_vertical(vertical),
            "split": rows["evaluation_status"],
            "role": rows["role"],
            **{name: boxes[name] for name in boxes.column_names},
            SOURCE_FILE: pa.repeat(pa.scalar(partition), rows.num_rows),
            SOURCE_ROW: rows[SOURCE_ROW],
        }
    )
    counts = {
        "pictures": table.num_rows + others,
        "pairs": listed.table.num_rows,
        "items": pc.count_distinct(table["item_id"]).as_py(),
    }
    return Imported(table, counts, tuple(notes))


def _count_pictures(pairs: pa.Table) -> int:
    """Returns the number of different pictures in pairs."""
    names = pa.chunked_array([*pairs[_STREET].chunks, *pairs[_SHOP].chunks], pa.string())
    return pc.count_distinct(names).as_py()


def _pictures_of_pairs(listed: ListFile, paths: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Returns a row per picture, at its first place in the list.

    Args:
      listed: the pairs.
      paths: parts of the consumers' pictures and, behind them, of the shops'.

    Returns:
      The rows' paths; and a table of `name`, `item_id`, `evaluation_status`, `role` and
      `source_row`.
    """
    pairs = listed.table
    shared = pairs.select(["item_id", "evaluation_status", SOURCE_ROW])
    both = pa.concat_tables(
        [shared.append_column("name", pairs[column]) for column in (_STREET, _SHOP)]
    )
    codes, _ = codes_of(both["name"])
    first = np.unique(codes, return_index=True)[1]
    for column, reason in (
        ("item_id", "a picture belongs to one item"),
        ("evaluation_status", "a picture is in one split"),
    ):
        _refuse_torn(listed, both, column, first[codes], reason)
    is_query, is_gallery = np.zeros(len(first), bool), np.zeros(len(first), bool)
    is_query[codes[: pairs.num_rows]] = True
    is_gallery[codes[pairs.num_rows :]] = True
    role = np.where(is_query & is_gallery, "both", np.where(is_query, "query", "gallery"))
    rows = both.take(pa.array(first)).append_column("role", pa.array(role, pa.string()))
    return paths.take(pa.array(first)), rows


def _refuse_torn(
    listed: ListFile, both: pa.Table, column: str, first: np.ndarray, reason: str
) -> None:
    """Raises a UserError if a picture has another value in a column than at its first place."""
    values, _ = codes_of(both[column])
    torn = np.flatnonzero(values != values[first])
    if not len(torn):
        return
    rows = both[SOURCE_ROW]
    there, index = sorted((int(first[torn[0]]), int(torn[0])), key=lambda row: rows[row].as_py())
    raise UserError(
        f"{listed.path}: row {rows[index]}: column {column!r}: "
        f"{both[column][index].as_py()!r}, but {both['name'][index]} has "
        f"{both[column][there].as_py()!r} in row {rows[there]}; {reason}"
    )


def _boxes(root: Path, names: pa.ChunkedArray) -> tuple[pa.Table, int, list[str]]:
    """Returns the boxes of pictures, how many pictures more have one, and notes on them."""
    found = find_optional_file(root, [f"Anno/{_BOXES}", f"anno/{_BOXES}", _BOXES])
    if found is None:
        note = f"{root}: no Anno/{_BOXES}: pictures are used whole, without boxes"
        return pa.table({}), 0, [note]
    listed = read_list(root / found, _BOX_COLUMNS)
    boxes, notes = boxes_of(names, listed, "image_name")
    in_pair = pc.is_in(listed.table["image_name"], value_set=names.combine_chunks())
    others = len(in_pair) - pc.sum(in_pair, min_count=0).as_py()
    if others:
        notes.append(f"{listed.path}: pictures in no pair, left out: {others}")
    return boxes, others, notes
