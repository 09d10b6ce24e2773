"""Manifests of noisy images, and the datasets prepared from them."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from apparel_embed.data.prepare import PrepareConfig, prepare

TOOL = Path(__file__).parents[1] / "tools" / "prepare_dataset.py"
HEADER = "image,item_id,vertical"


def make_images(directory, count, side=24):
    """Writes noisy images and their manifest, and returns the manifest."""
    random = np.random.default_rng(0)
    lines = [HEADER]
    for i in range(count):
        pixels = random.integers(0, 255, (side, side, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"{i}.png")
        lines.append(f"{i}.png,{i // 2:03d},{('tops', 'bags')[i // 2 % 2]}")
    manifest = directory / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def contents(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def rejects(directory):
    with open(directory / "rejects.csv", newline="") as file:
        return list(csv.DictReader(file))


def make_small(directory):
    """Writes 20 images, two unusable, and prepares them as `whole`; returns the manifest."""
    manifest = make_images(directory, 20)
    (directory / "3.png").write_bytes(b"broken")
    (directory / "17.png").unlink()
    prepare(PrepareConfig(manifest, directory / "whole", shard_records=2), processes=1)
    return manifest
