"""DeepFashion, In-shop Clothes Retrieval Benchmark (Liu et al. 2016, CVPR).

    Eval/list_eval_partition.txt      picture, item, train | query | gallery
    Anno/list_bbox_inshop.txt         picture, clothes type, pose type, box
    img/WOMEN/Dresses/id_00000002/02_1_front.jpg      (or Img/img/..., img_highres/...)

Layout and columns are those of the README that comes with the dataset, of the documentation of
MMFashion and of the converters of Open Metric Learning, which read the lists from the dataset's
root; that place is accepted too. The published counts are those of the README and of Open Metric
Learning (pictures and items) and what public readers of the list report (3,997 items with 25,882
pictures to train on, 3,985 with 14,218 queries and 12,612 gallery pictures). The dataset itself was
not at hand: that an item lies in one category only is assumed.

Training items are not among query and gallery, and no validation split is published: rows are
`train` with role both, or `test` with role query or gallery. Hold out validation items when
preparing, `--val_fraction`.

**Boxes** belong to the pictures of `img.zip`, which the README calls centred and resized to
256 x 256 with their aspect ratio kept. For `img_highres` they are mapped back accordingly, from the
picture's own size. Whether the corners count from 0 or from 1 is not documented; a pixel is
less than the margin that `prepare` leaves around a box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.list_files import boxes_of, read_list
from apparel_embed.data.importers.picture_sizes import picture_sizes
from apparel_embed.data.importers.published_layout import (
    find_file,
    find_optional_file,
    find_pictures,
    to_vertical,
)
from apparel_embed.data.manifest import BOX_COLUMNS

PUBLISHED: Mapping[str, int] = {
    "pictures": 52_712,
    "items": 7_982,
    "train pictures": 25_882,
    "query pictures": 14_218,
    "gallery pictures": 12_612,
}

_NAME = "the In-shop benchmark"
_PARTITION = "list_eval_partition.txt"
_BOXES = "list_bbox_inshop.txt"
_STATUSES = ("train", "query", "gallery")
_IMAGES = ("img", "img_highres")
_PATH_PARTS = ("gender", "category", "item", "picture")
_EXAMPLE = "img/WOMEN/Dresses/id_00000002/02_1_front.jpg"
# Side of the squares of img.zip, in whose pixels the boxes are.
_SIDE = 256


@dataclasses.dataclass(frozen=True)
class InShopOptions:
    """How to read the benchmark.

    Attributes:
      images: directory of the pictures: `img`, 256 pixels wide and high, or `img_highres`.
      separate_genders: whether clothes of men and women are verticals apart, `men_shorts` and
        `women_shorts`, or one, `shorts`.
    """

    images: str = "img"
    separate_genders: bool = True

    def __post_init__(self) -> None:
        """Raises a UserError if `images` is something else."""
        if self.images not in _IMAGES:
            raise UserError(f"images {self.images!r} is not allowed; allowed: {', '.join(_IMAGES)}")


def convert(root: Path, options: InShopOptions | None = None) -> Imported:
    """Converts the benchmark.

    Args:
      root: the directory with `Eval`, `Anno` and `img` (or `Img`).
      options: see `InShopOptions`; None for the defaults.

    Returns:
      A row per listed picture, in the list's order.

    Raises:
      UserError: a file is missing, cut short or wrong; the message names it and the row.
    """
    options = options or InShopOptions()
    partition = find_file(root, [f"Eval/{_PARTITION}", f"eval/{_PARTITION}", _PARTITION], _NAME)
    columns = {"image_name": True, "item_id": False, "evaluation_status": False}
    listed = read_list(root / partition, columns)
    paths = listed.split_paths("image_name", "img/", _PATH_PARTS, _EXAMPLE)
    listed.refuse_other_than("evaluation_status", _STATUSES)
    folder = find_pictures(root, options.images, paths["gender"].unique().to_pylist())
    names, status = listed.table["image_name"], listed.table["evaluation_status"]
    images = pc.replace_substring_regex(names, "^img/", f"{folder}/")
    boxes, notes = _boxes(root, names, images, options)
    category = paths["category"]
    if options.separate_genders:
        category = pc.binary_join_element_wise(paths["gender"], category, "_")
    is_train = pc.equal(status, "train")
    table = pa.table(
        {
            "image": images,
            "item_id": listed.table["item_id"],
            "vertical": to_vertical(category),
            "split": pc.if_else(is_train, "train", "test"),
            "role": pc.if_else(is_train, "both", status),
            **{name: boxes[name] for name in boxes.column_names},
            SOURCE_FILE: pa.repeat(pa.scalar(partition), len(names)),
            SOURCE_ROW: listed.table[SOURCE_ROW],
        }
    )
    counts = {
        "pictures": pc.count_distinct(names).as_py(),
        "items": pc.count_distinct(table["item_id"]).as_py(),
        **{
            f"{name} pictures": pc.sum(pc.equal(status, name), min_count=0).as_py()
            for name in _STATUSES
        },
    }
    return Imported(table, counts, tuple(notes))


def _boxes(
    root: Path, names: pa.ChunkedArray, images: pa.ChunkedArray, options: InShopOptions
) -> tuple[pa.Table, list[str]]:
    """Returns the boxes of pictures, no column if there is no list; and notes on them."""
    found = find_optional_file(root, [f"Anno/{_BOXES}", f"anno/{_BOXES}", _BOXES])
    if found is None:
        return pa.table({}), [f"{root}: no Anno/{_BOXES}: pictures are used whole, without boxes"]
    columns = {"image_name": True, "clothes_type": False, "pose_type": False}
    columns.update(dict.fromkeys(("x_1", "y_1", "x_2", "y_2"), False))
    boxes, notes = boxes_of(names, read_list(root / found, columns), "image_name")
    if options.images == "img_highres":
        widths, heights = picture_sizes(root, images.to_pylist())
        boxes = _map_back(boxes, widths, heights)
        notes.append(
            f"boxes were mapped from pictures of {_SIDE}x{_SIDE} pixels to those of "
            f"{options.images}"
        )
    return boxes, notes


def _map_back(boxes: pa.Table, widths: np.ndarray, heights: np.ndarray) -> pa.Table:
    """Returns boxes in the pixels of pictures that were shrunk and centred in squares.

    Args:
      boxes: in the squares' pixels.
      widths: of the pictures, float [rows], NaN where unknown.
      heights: likewise.

    Returns:
      The boxes, cut to the picture; null where its size is unknown or nothing is left.
    """
    x_min, y_min, x_max, y_max = (boxes[name].to_numpy().astype(np.float64) for name in BOX_COLUMNS)
    longest = np.maximum(widths, heights)
    mapped = []
    for low, high, side in ((x_min, x_max, widths), (y_min, y_max, heights)):
        border = (_SIDE - side / longest * _SIDE) / 2
        mapped.append([np.clip((edge - border) * longest / _SIDE, 0, side) for edge in (low, high)])
    (x_min, x_max), (y_min, y_max) = mapped
    # False for NaN too.
    is_box = (x_max > x_min) & (y_max > y_min)
    return pa.table(
        {
            name: pa.array(edge, mask=~is_box)
            for name, edge in zip(BOX_COLUMNS, (x_min, y_min, x_max, y_max))
        }
    )
