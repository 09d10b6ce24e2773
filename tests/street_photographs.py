"""Tiny street photographs of a red and a blue square; items differ in brightness."""

import csv

import numpy as np
from PIL import Image

from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig

SIDE = 96
HUES = {"dresses": (1.0, 0.1, 0.1), "bags": (0.1, 0.1, 1.0)}
_HEADER = "image,item_id,vertical,split,role,x_min,y_min,x_max,y_max"


def make_street(directory, train=24, val=8, test=8, seed=0):
    """Writes photographs and a shop image of each item, and returns the manifest."""
    random = np.random.default_rng(seed)
    rows = [_HEADER]
    (directory / "images").mkdir(parents=True)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for vertical, hue in HUES.items():
            for item in range(4):
                name = f"images/{split}-{vertical}-{item}.png"
                Image.fromarray(_garment(hue, item, 40, 40)).save(directory / name)
                rows.append(f"{name},{split}-{vertical}-{item},{vertical},{split},gallery,,,,")
        for number in range(count):
            image = random.integers(150, 255, (SIDE, SIDE, 3)).astype(np.uint8)
            name = f"images/{split}-{number}.png"
            for place, (vertical, hue) in enumerate(HUES.items()):
                width, height = random.integers(24, 40, 2)
                left = place * SIDE // 2 + random.integers(0, SIDE // 2 - width)
                top = random.integers(0, SIDE - height)
                item = int(random.integers(0, 4))
                image[top : top + height, left : left + width] = _garment(hue, item, height, width)
                box = f"{left},{top},{left + width},{top + height}"
                rows.append(f"{name},{split}-{vertical}-{item},{vertical},{split},query,{box}")
            Image.fromarray(image).save(directory / name)
    manifest = directory / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def _garment(hue, item, height, width):
    level = (70, 130, 190, 250)[item]
    return np.tile(np.array(hue) * level, (height, width, 1)).astype(np.uint8)


def prepare_street(manifest, directory):
    """Prepares the whole photographs and their garments, and returns both datasets."""
    whole = PrepareConfig(manifest, directory / "photographs", photographs=True, max_side=SIDE)
    return prepare(whole, 1), prepare(PrepareConfig(manifest, directory / "prepared"), 1)


def rows_of(manifest):
    with open(manifest, newline="") as file:
        return list(csv.DictReader(file))
