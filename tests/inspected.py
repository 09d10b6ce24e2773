"""Manifests and images with known problems, to inspect."""

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
    """Returns an image of coarse and fine coloured clouds, like a photograph, for each seed."""
    random = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for side in (3, 6, 12, 24, 48):
        pixels = Image.fromarray(random.integers(0, 256, (side, side, 3)).astype(np.uint8))
        total += np.asarray(pixels.resize(size, Image.Resampling.BICUBIC), float) / side
    low, high = total.min(), total.max()
    return Image.fromarray(np.round(255 * (total - low) / (high - low)).astype(np.uint8))


def write_manifest(path: Path, rows: list[tuple], header: tuple[str, ...] = HEADER) -> Path:
    """Writes rows as CSV and returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path


def table_of(tmp_path: Path, rows: list[tuple], header: tuple[str, ...] = HEADER) -> pa.Table:
    """Returns rows as read by `read_manifest`."""
    return read_manifest(write_manifest(tmp_path / "manifest.csv", rows, header))


def labels_of(tmp_path: Path, rows: list[tuple]) -> Labels:
    """Returns the labels of rows (item, vertical, split, role)."""
    return Labels.of(table_of(tmp_path, [(f"{n}.jpg", *row) for n, row in enumerate(rows)]))


NASTY = '<script src="x">&</script>'


def write_hostile(directory: Path) -> Path:
    """Writes a dataset with many problems and returns its manifest.

    By line of the manifest: 2 and 3 are valid; 4 is the image of 2 saved again, under another item;
    5 is a byte-for-byte copy of 3, in split test; 6 is missing and 7 truncated; 8 is small; 9 has
    one colour; 10 and 11 are one file in items of two verticals; 12 has markup as its item id and a
    path with a space and an umlaut; 13 is like 12 except its colours; 14 and 15 are a query and
    its answer, which is a copy of it; the item id of 16 differs from that of 2 only in case.
    """
    directory.mkdir(parents=True, exist_ok=True)
    pattern(1).save(directory / "a.png")
    pattern(2).save(directory / "b.png")
    pattern(1).save(directory / "a_anew.jpg", quality=90)
    (directory / "b_copy.png").write_bytes((directory / "b.png").read_bytes())
    whole = (directory / "a.png").read_bytes()
    (directory / "truncated.png").write_bytes(whole[: len(whole) // 2])
    pattern(3, (30, 40)).save(directory / "small.png")
    Image.new("RGB", (120, 160), "grey").save(directory / "grey.png")
    pattern(4).save(directory / "shared.png")
    red = np.asarray(pattern(5)).astype(float)
    Image.fromarray(red.astype(np.uint8)).save(directory / "Größe 5.png")
    # The same brightness, so that outlines stay.
    grey = red @ (0.299, 0.587, 0.114)
    Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(directory / "recoloured.png")
    pattern(6).save(directory / "answer.png")
    pattern(6).resize((90, 120)).save(directory / "query.png")
    pattern(7).save(directory / "last.png")
    rows = [
        ("a.png", "Item1", "tops", "train", "both"),
        ("b.png", "Item1", "tops", "train", "both"),
        ("a_anew.jpg", "item2", "tops", "train", "both"),
        ("b_copy.png", "item3", "tops", "test", "both"),
        ("missing.png", "item2", "tops", "train", "both"),
        ("truncated.png", "item2", "tops", "train", "both"),
        ("small.png", "item2", "tops", "train", "both"),
        ("grey.png", "item2", "tops", "train", "both"),
        ("shared.png", "item4", "tops", "train", "both"),
        ("shared.png", "item5", "bags", "train", "both"),
        ("Größe 5.png", NASTY, "bags", "train", "both"),
        ("recoloured.png", "item6", "bags", "train", "both"),
        ("query.png", "item7", "bags", "test", "query"),
        ("answer.png", "item7", "bags", "test", "gallery"),
        ("last.png", "item1", "tops", "train", "both"),
    ]
    return write_manifest(directory / "manifest.csv", rows)
