"""Miniature trees in the layouts of published datasets, with small real images.

Each has at least two verticals of four or more training items with two images each, and test items
with query and gallery images, so a model can be trained and evaluated on it.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TRAIN_ITEMS = 4
TEST_ITEMS = 2
# Missing in Street2Shop: the street image of bag 6 and a shop image of bag 1.
DEAD_PHOTOS = (16, 23)


class _Painter:
    """Draws noisy images, one hue per item."""

    def __init__(self, items: int):
        self._items = items
        self._random = np.random.default_rng(0)

    def draw(self, path: Path, item: int, size: tuple[int, int]) -> None:
        """Writes a JPEG of `size` (width, height)."""
        width, height = size
        colour = 255 * np.array(colorsys.hsv_to_rgb(item / self._items, 0.8, 0.8))
        noisy = colour + self._random.normal(0, 12, (height, width, 3))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path, "JPEG")


def write_list(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a list in DeepFashion's format: count, columns, cells padded with spaces."""
    width = max(len(row[0]) for row in rows) + 4
    lines = [str(len(rows)), " ".join(columns)]
    lines += [f"{row[0]:<{width}}" + " ".join(f"{cell:<6}" for cell in row[1:]) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def make_in_shop(root: Path, images: str = "img") -> None:
    """Creates the In-shop benchmark: women's dresses, women's and men's shorts.

    Items id_00000001 to id_00000018, six per vertical: four train items with two images, two
    test items with one query and two gallery images. Images in `img` have 40x40 pixels, with boxes
    in them; in `img_highres` 30x44, with boxes in squares of 256 pixels, as published.
    """
    painter = _Painter(18)
    size = (40, 40) if images == "img" else (30, 44)
    box = ["004", "006", "036", "038"] if images == "img" else ["064", "032", "192", "224"]
    partition, boxes, item = [], [], 0
    for folder in ("WOMEN/Dresses", "WOMEN/Shorts", "MEN/Shorts"):
        for number in range(TRAIN_ITEMS + TEST_ITEMS):
            item += 1
            is_train = number < TRAIN_ITEMS
            statuses = ["train", "train"] if is_train else ["query", "gallery", "gallery"]
            names = ("02_1_front.jpg", "02_2_side.jpg", "02_4_full.jpg")
            for pose, (status, name) in enumerate(zip(statuses, names), 1):
                path = f"{folder}/id_{item:08}/{name}"
                painter.draw(root / images / path, item, size)
                partition.append([f"img/{path}", f"id_{item:08}", status])
                boxes.append([f"img/{path}", "3", str(pose), *box])
    columns = ["image_name", "item_id", "evaluation_status"]
    write_list(root / "Eval" / "list_eval_partition.txt", columns, partition)
    columns = ["image_name", "clothes_type", "pose_type", "x_1", "y_1", "x_2", "y_2"]
    write_list(root / "Anno" / "list_bbox_inshop.txt", columns, boxes)


def make_consumer_to_shop(root: Path) -> None:
    """Creates the Consumer-to-shop benchmark: dresses, and two kinds of blouses.

    Items id_00000001 to id_00000024, eight per vertical: four train, two val, two test, each with
    two consumer images and one shop image, which is in two pairs.
    """
    painter = _Painter(24)
    pairs, boxes, item = [], [], 0
    for folder in ("DRESSES/Dress", "TOPS/Blouse", "CLOTHING/Blouse"):
        for status in ("train",) * TRAIN_ITEMS + ("val",) * 2 + ("test",) * TEST_ITEMS:
            item += 1
            place = f"img/{folder}/id_{item:08}"
            shop = f"{place}/shop_01.jpg"
            streets = [f"{place}/comsumer_{view:02}.jpg" for view in (1, 2)]
            for path in (shop, *streets):
                painter.draw(root / path, item, (36, 48))
                source = "1" if path == shop else "2"
                boxes.append([path, "3", source, "003", "005", "033", "045"])
            pairs += [[street, shop, f"id_{item:08}", status] for street in streets]
    columns = ["image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status"]
    write_list(root / "Eval" / "list_eval_partition.txt", columns, pairs)
    columns = ["image_name", "clothes_type", "source_type", "x_1", "y_1", "x_2", "y_2"]
    write_list(root / "Anno" / "list_bbox_consumer2shop.txt", columns, boxes)


def make_deepfashion2(root: Path) -> None:
    """Creates DeepFashion2: pairs 1 to 4 in train, 1 and 2 in validation.

    Every pair has a user and a shop image, 48x48 pixels, each with a short sleeve top of style 1
    and trousers of style 2; the shop image also has shorts without a style.
    """
    painter = _Painter(2 * TRAIN_ITEMS + 1)
    for folder, pairs in (("train", TRAIN_ITEMS), ("validation", TEST_ITEMS)):
        number = 0
        for pair in range(1, pairs + 1):
            for source in ("user", "shop"):
                number += 1
                painter.draw(root / folder / "image" / f"{number:06}.jpg", 2 * pair, (48, 48))
                garments = [
                    deepfashion2_garment(1, "short sleeve top", 1, [4, 2, 44, 24]),
                    deepfashion2_garment(8, "trousers", 2, [8, 22, 40, 46]),
                ]
                if source == "shop":
                    garments.append(deepfashion2_garment(7, "shorts", 0, [0, 0, 8, 8]))
                annotation = {"source": source, "pair_id": pair}
                annotation.update({f"item{n}": one for n, one in enumerate(garments, 1)})
                write_json(root / folder / "annos" / f"{number:06}.json", annotation)


def deepfashion2_garment(
    category_id: int, category: str, style: int, box: list[int]
) -> dict[str, Any]:
    """Returns a garment in the format of DeepFashion2's annotations."""
    x_min, y_min, x_max, y_max = box
    return {
        "segmentation": [[x_min, y_min, x_max, y_min, x_max, y_max, x_min, y_max]],
        "scale": 2,
        "viewpoint": 2,
        "zoom_in": 1,
        "landmarks": [x_min, y_min, 2],
        "style": style,
        "bounding_box": box,
        "category_id": category_id,
        "occlusion": 1,
        "category_name": category,
    }


def make_street2shop(root: Path) -> None:
    """Creates Street2Shop: bags and dresses, products 1 to 7 of each.

    Products 1 to 4 are in train pairs, 5 and 6 in test pairs, 7 in none; each has a street image
    (except 7) and two shop images, 40x44 pixels. Street images are numbers 11 to 16 for bags and
    111 to 116 for dresses, shop images 22, 23 to 34, 35 and 122, 123 to 134, 135. Two images,
    `DEAD_PHOTOS`, are missing.
    """
    painter = _Painter(14)
    for part, vertical in enumerate(("bags", "dresses")):
        lists: dict[str, list[Any]] = {"retrieval": [], "train_pairs": [], "test_pairs": []}
        for product in range(1, 8):
            street = 100 * part + 10 + product
            shops = [100 * part + 20 + 2 * product, 100 * part + 21 + 2 * product]
            lists["retrieval"] += [{"photo": shop, "product": product} for shop in shops]
            if product <= 6:
                box = {"width": 30, "top": 4, "left": 5, "height": 36}
                pair = {"photo": street, "product": product, "bbox": box}
                lists["train_pairs" if product <= 4 else "test_pairs"].append(pair)
            for photo in (street, *shops) if product <= 6 else shops:
                if photo not in DEAD_PHOTOS:
                    path = root / "images" / f"{photo:09}.jpeg"
                    painter.draw(path, 7 * part + product, (40, 44))
        for name, entries in lists.items():
            write_json(root / "meta" / "json" / f"{name}_{vertical}.json", entries)


def make_stanford_online_products(root: Path) -> None:
    """Creates Stanford Online Products: bicycles and chairs.

    Classes 1 to 8 are train, 9 to 12 test, half of each are bicycles; two images each in train,
    three in test.
    """
    painter = _Painter(12)
    image_id = 0
    for split, classes in (("train", range(1, 9)), ("test", range(9, 13))):
        lines = ["image_id class_id super_class_id path"]
        for class_id in classes:
            super_class = 1 + class_id % 2
            folder = ("bicycle_final", "chair_final")[super_class - 1]
            for view in range(2 if split == "train" else 3):
                image_id += 1
                path = f"{folder}/{111085122870 + class_id}_{view}.JPG"
                painter.draw(root / path, class_id, (40, 32))
                lines.append(f"{image_id} {class_id} {super_class} {path}")
        (root / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n", "utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


TREES = {
    "deepfashion_in_shop": make_in_shop,
    "deepfashion_consumer_to_shop": make_consumer_to_shop,
    "deepfashion2": make_deepfashion2,
    "street2shop": make_street2shop,
    "stanford_online_products": make_stanford_online_products,
}
"""Functions that create a small dataset in a directory, by layout."""
