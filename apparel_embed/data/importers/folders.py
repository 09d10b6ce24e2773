"""A folder per item, in a folder per vertical: `<vertical>/<item>/<picture>`.

With one vertical named, `<item>/<picture>`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.walk import LeftOut, list_folder


@dataclasses.dataclass(frozen=True)
class FoldersOptions:
    """How folders are laid out.

    Attributes:
      vertical: the vertical of all items, whose folders then lie in the root; None where they lie
        in a folder per vertical.
    """

    vertical: str | None = None


def convert(root: Path, options: FoldersOptions | None = None) -> Imported:
    """Returns a row per picture; folders are named after items and verticals.

    Items of the same name in two verticals are different ones: their ids begin with the vertical.
    Hidden files, files that are no pictures by their names, and pictures that lie elsewhere are
    left out and counted.

    Args:
      root: holds the folders.
      options: how they are laid out.

    Raises:
      UserError: a folder cannot be read, a name is not UTF-8, or there is no picture.
    """
    named = (options or FoldersOptions()).vertical
    left_out = LeftOut()
    images: list[str] = []
    items: list[str] = []
    verticals: list[str] = []
    for folder in [""] if named else _folders(root, "", left_out):
        for item in _folders(root, folder, left_out):
            found = list_folder(root, item, left_out)
            for deeper in found.folders:
                left_out.add("folders in items' folders", deeper)
            images += found.pictures
            items += [_name(item)] * len(found.pictures)
            verticals += [named or folder] * len(found.pictures)
    if not images:
        layout = "<item>/<picture>"
        if not named:
            layout = f"<vertical>/{layout} (where they are {layout}, give --vertical)"
        raise UserError("; ".join([f"{root}: no pictures as {layout}", *left_out.notes()]))
    ids, shared = _unique_ids(pa.array(items), pa.array(verticals))
    table = pa.table(
        {
            "image": images,
            "item_id": ids,
            "vertical": verticals,
            SOURCE_FILE: images,
            SOURCE_ROW: pa.nulls(len(images), pa.int64()),
        }
    )
    counts = {"pictures": table.num_rows, "items": pc.count_distinct(table["item_id"]).as_py()}
    return Imported(table, counts, (*left_out.notes(), *shared))


def _folders(root: Path, folder: str, left_out: LeftOut) -> list[str]:
    """Returns the folders in a folder; counts the pictures beside them."""
    found = list_folder(root, folder, left_out)
    for picture in found.pictures:
        left_out.add("pictures outside of items' folders", picture)
    return found.folders


def _name(folder: str) -> str:
    return folder.rpartition("/")[2]


def _unique_ids(items: pa.Array, verticals: pa.Array) -> tuple[pa.Array, tuple[str, ...]]:
    """Returns ids that differ between verticals, and a note if names alone would not."""
    pairs = pa.table({"item": items, "vertical": verticals})
    pairs = pairs.group_by(["item", "vertical"]).aggregate([])
    counts = pairs.group_by("item").aggregate([("vertical", "count")])
    shared = counts.filter(pc.greater(counts["vertical_count"], 1))["item"].combine_chunks()
    if not len(shared):
        return items, ()
    longer = pc.binary_join_element_wise(verticals, items, "/")
    ids = pc.if_else(pc.is_in(items, value_set=shared), longer, items)
    example = ids[pc.index(pc.not_equal(ids, items), True).as_py()].as_py()
    return ids, (
        f"names of items that are in several verticals: {len(shared):,}; they are different items, "
        f"and their ids begin with the vertical (e.g. {example})",
    )
