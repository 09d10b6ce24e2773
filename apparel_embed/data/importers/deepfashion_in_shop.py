"""DeepFashion, In-shop Clothes Retrieval Benchmark (Liu et al. 2016, CVPR).

    Eval/list_eval_partition.txt      image, item, train | query | gallery
    Anno/list_bbox_inshop.txt         image, clothes type, pose type, box
    img/WOMEN/Dresses/id_00000002/02_1_front.jpg      (or Img/img/..., img_highres/...)

Layout, columns and counts follow the README that comes with the dataset, MMFashion and Open Metric
Learning. Like the latter, this importer also reads the lists from the dataset's root. It was
written without the dataset and assumes that an item is in one category only.

Training items are neither query nor gallery, and no validation split is published: rows are `train`
with role both, or `test` with role query or gallery. Hold out validation items when preparing, with
`--val_fraction`.

Boxes belong to the images of `img.zip`. According to the README these are resized to 256 x 256
with their aspect ratio kept, and centred. For `img_highres` boxes are mapped to the image's own
size. Whether corners count from 0 or from 1 is not documented; `prepare` leaves a wider margin.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.image_files import image_sizes
from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.published import (
    find_file,
    find_images,
    read_boxes,
    read_list,
    to_vertical,
)
from apparel_embed.data.importers.rows import Box, Row, Rows, to_table

PUBLISHED: Mapping[str, int] = {
    "images": 52_712,
    "items": 7_982,
    "train images": 25_882,
    "query images": 14_218,
    "gallery images": 12_612,
}

_STATUSES = ("train", "query", "gallery")
_IMAGES = ("img", "img_highres")
_EXAMPLE = "img/WOMEN/Dresses/id_00000002/02_1_front.jpg"
# Side in pixels of the square images of img.zip, to which the boxes refer.
_SIDE = 256


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns a row per listed image, in the list's order.

    Raises:
      UserError: a file is missing, truncated or wrong; the error names file and row.
    """
    image_dir = options.image_dir or _IMAGES[0]
    if image_dir not in _IMAGES:
        raise UserError(f"--image_dir={image_dir} is unknown; expected one of {', '.join(_IMAGES)}")
    source = find_file(root, "Eval/list_eval_partition.txt", "the In-shop benchmark")
    lines = read_list(root / source, "image_name item_id evaluation_status", ["image_name"])
    paths = {line["image_name"]: line.path_parts("image_name", like=_EXAMPLE) for line in lines}
    folder = find_images(root, image_dir, list(dict.fromkeys(path[1] for path in paths.values())))
    images = {name: "/".join([folder, *path[1:]]) for name, path in paths.items()}
    boxes, notes = read_boxes(
        root, "Anno/list_bbox_inshop.txt", "image_name clothes_type pose_type", images
    )
    if boxes and image_dir != _IMAGES[0]:
        boxes = _map_back(root, images, boxes)
        notes.append(
            f"boxes were mapped from {_SIDE}x{_SIDE} pixels to the size of images in {image_dir}"
        )
    rows = []
    found: collections.Counter[str] = collections.Counter()
    for line in lines:
        name, status = line["image_name"], line.choice("evaluation_status", _STATUSES)
        found[status] += 1
        category = "_".join(paths[name][1 if options.separate_genders else 2 : 3])
        split, role = ("train", "both") if status == "train" else ("test", status)
        what = (images[name], line["item_id"], to_vertical(category), split, role)
        rows.append(Row(*what, boxes.get(name), source, line.row))
    counts = {
        "images": len(images),
        "items": len({row.item_id for row in rows}),
        **{f"{status} images": found[status] for status in _STATUSES},
    }
    return Rows(to_table(rows), root, counts, notes)


def _map_back(
    root: Path, images: Mapping[str, str], boxes: Mapping[str, Box | None]
) -> dict[str, Box | None]:
    """Maps boxes from squares in which images were shrunk and centred to the images' own pixels.

    Boxes are clipped to the image; they are left out if its size is unknown or nothing remains.
    """
    mapped: dict[str, Box | None] = {}
    for (name, _), *sides in zip(images.items(), *image_sizes(root, list(images.values()))):
        box = boxes.get(name)
        if box:
            (x_min, x_max), (y_min, y_max) = (_from_square(box, axis, sides) for axis in (0, 1))
            if x_max > x_min and y_max > y_min:  # False for NaN too.
                mapped[name] = (x_min, y_min, x_max, y_max)
    return mapped


def _from_square(box: Box, axis: int, sides: Sequence[float]) -> list[float]:
    """Returns the two edges of a box along an axis, in pixels of an image with these sides."""
    longest = max(sides)
    border = (_SIDE - sides[axis] / longest * _SIDE) / 2
    edges = ((edge - border) * longest / _SIDE for edge in box[axis::2])
    return [min(max(edge, 0.0), sides[axis]) for edge in edges]


FORMAT = Format(convert, "Eval/list_eval_partition.txt, img/", PUBLISHED)
