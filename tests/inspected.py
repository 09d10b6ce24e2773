"""Manifests and pictures to inspect, of which it is known what is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.manifest import read_manifest

HEADER = ("image", "item_id", "vertical", "split", "role")


def pattern(seed: int, size: tuple[int, int] = (120, 160)) -> Image.Image:
    """Returns a picture of coloured clouds, coarse and fine as in a photograph, for each seed."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for side in (3, 6, 12, 24, 48):
        pixels = Image.fromarray(random.integers(0, 256, (side, side, 3)).astype(np.uint8))
        total += np.asarray(pixels.resize(size, Image.Resampling.BICUBIC), float) / side
    low, high = total.min(), total.max()
    return Image.fromarray(np.round(255 * (total - low) / (high - low)).astype(np.uint8))


def write_manifest(path: Path, rows: list[tuple], header: tuple[str, ...] = HEADER) -> Path:
    """Writes rows as CSV; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def table_of(tmp_path: Path, rows: list[tuple], header: tuple[str, ...] = HEADER) -> pa.Table:
    """Returns rows as `read_manifest` does."""
    return read_manifest(write_manifest(tmp_path / "manifest.csv", rows, header))


def labels_of(tmp_path: Path, rows: list[tuple]) -> Labels:
    """Returns the labels of (item, vertical, split, role)."""
    return Labels.of(table_of(tmp_path, [(f"{n}.jpg", *row) for n, row in enumerate(rows)]))
