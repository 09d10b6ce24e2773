"""Stanford Online Products (Song et al. 2016, "Deep Metric Learning via Lifted Structured ...").

    Ebay_train.txt, Ebay_test.txt     image_id class_id super_class_id path
    bicycle_final/111085122871_0.JPG

Layout and columns are those that the converters of Open Metric Learning and other public readers
of the two lists rely on; the published counts are those of Open Metric Learning's documentation
(120,053 pictures of 22,634 products, 59,551 of 11,318 for training, 60,502 of 11,316 for testing).
The dataset itself was not at hand.

A product is an item, a super class a vertical, by the name of its directory without `_final`
(`bicycle`). Products of the test list are not in the training list, and no validation split is
published: hold out validation items when preparing, `--val_fraction`. Every test picture is a query
and the rest its gallery, so that its role is both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.list_files import read_list
from apparel_embed.data.importers.published_layout import find_file, to_vertical

PUBLISHED: Mapping[str, int] = {
    "pictures": 120_053,
    "items": 22_634,
    "train pictures": 59_551,
    "train items": 11_318,
    "test pictures": 60_502,
    "test items": 11_316,
    "verticals": 12,
}

_NAME = "Stanford Online Products"
_EXAMPLE = "bicycle_final/111085122871_0.JPG"
_COLUMNS = {"image_id": False, "class_id": False, "super_class_id": False, "path": True}


def convert(root: Path, options: None = None) -> Imported:
    """Converts the dataset.

    Args:
      root: the directory with `Ebay_train.txt`, `Ebay_test.txt` and the pictures' directories.
      options: there are none.

    Returns:
      A row per picture, training pictures first, in the lists' order.

    Raises:
      UserError: a list is missing, cut short or wrong; the message names file and row.
    """
    table = pa.concat_tables([_read_split(root, split) for split in ("train", "test")])
    counts = {"verticals": pc.count_distinct(table["vertical"]).as_py()}
    for prefix, part in (
        ("", table),
        ("train ", table.filter(pc.equal(table["split"], "train"))),
        ("test ", table.filter(pc.equal(table["split"], "test"))),
    ):
        counts[f"{prefix}pictures"] = part.num_rows
        counts[f"{prefix}items"] = pc.count_distinct(part["item_id"]).as_py()
    return Imported(table, counts)


def _read_split(root: Path, split: str) -> pa.Table:
    """Returns the rows of one list."""
    name = find_file(root, [f"Ebay_{split}.txt"], _NAME)
    listed = read_list(root / name, _COLUMNS, counted=False)
    for column in ("image_id", "class_id", "super_class_id"):
        wrong = pc.invert(pc.match_substring_regex(listed.table[column], "^[0-9]+$"))
        listed.refuse(column, wrong, "a whole number is needed")
    parts = listed.split_paths("path", "", ("folder", "picture"), _EXAMPLE)
    rows = listed.table.num_rows
    return pa.table(
        {
            "image": listed.table["path"],
            "item_id": listed.table["class_id"],
            "vertical": to_vertical(pc.replace_substring_regex(parts["folder"], "_final$", "")),
            "split": pa.repeat(pa.scalar(split), rows),
            "role": pa.repeat(pa.scalar("both"), rows),
            SOURCE_FILE: pa.repeat(pa.scalar(name), rows),
            SOURCE_ROW: listed.table[SOURCE_ROW],
        }
    )
