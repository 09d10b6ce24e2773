"""Whole photographs with all their garments: one row per image instead of one per box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import BOX_COLUMNS, RESERVED_COLUMN, UNLABELLED
from apparel_embed.data.prepared import PreparedDataset

PHOTOGRAPH = "photograph"
"""The vertical of all rows; their garments are in column `garments`."""
_GARMENTS = "garments"
_SIZE = ("upright_width", "upright_height")
# A photograph's split is the last of these among its garments' splits, so a detector is never
# evaluated on a photograph that it was trained on.
_SPLITS = ("train", "val", "test")


class Garments(NamedTuple):
    """Garments of photographs, one row each.

    Attributes:
      photographs: int64 [n], index of its photograph among the requested ones; ascending.
      boxes: float32 [n, 4]: x_min, y_min, x_max, y_max as fractions, 0 to 1, of the square that the
        upright photograph is padded to.
      verticals: object [n], name of its vertical.
      items: object [n], its item, "" if unknown.
      splits: object [n], its own split.
    """

    photographs: np.ndarray
    boxes: np.ndarray
    verticals: np.ndarray
    items: np.ndarray
    splits: np.ndarray


def photographs_of(table: pa.Table, what: str) -> pa.Table:
    """Returns a row for each image of a manifest with boxes, in the order of their first rows.

    Args:
      table: rows of a manifest, numbered in a column `record`.
      what: name of the manifest, for messages.

    Returns:
      The columns of a manifest with empty boxes, `record` of the first row, and `garments`.

    Raises:
      UserError: if no row has a box.
    """
    boxed = table.filter(pc.is_valid(table["x_min"]))
    if not boxed.num_rows:
        raise UserError(
            f"{what}: no row has a box; a detector is trained on boxes of garments, columns "
            f"{', '.join(BOX_COLUMNS)}"
        )
    names = ["image", RESERVED_COLUMN, "vertical", "item_id", "split", *BOX_COLUMNS]
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in boxed.select(names).to_pylist():
        by_image.setdefault(row["image"], []).append(row)
    count = len(by_image)
    nothing = pa.nulls(count, pa.float64())
    return pa.table(
        {
            "image": pa.array(by_image, pa.string()),
            "item_id": pa.array(by_image, pa.string()),
            "vertical": pa.repeat(pa.scalar(PHOTOGRAPH), count),
            "split": pa.array([_split_of(rows) for rows in by_image.values()], pa.string()),
            "role": pa.repeat(pa.scalar("both"), count),
            **dict.fromkeys(BOX_COLUMNS, nothing),
            RESERVED_COLUMN: pa.array([rows[0][RESERVED_COLUMN] for rows in by_image.values()]),
            _GARMENTS: pa.array([_to_json(rows) for rows in by_image.values()], pa.string()),
        }
    )


def _split_of(rows: Sequence[dict[str, Any]]) -> str:
    splits = {"train" if row["split"] == UNLABELLED else row["split"] for row in rows}
    return max(splits, key=_SPLITS.index)


def _to_json(rows: Sequence[dict[str, Any]]) -> str:
    names = ("vertical", "item_id", "split", *BOX_COLUMNS)
    return json.dumps([[row[name] for name in names] for row in rows], ensure_ascii=False)


def with_sizes(index: pa.Table, sizes: Sequence[Sequence[int]]) -> pa.Table:
    """Returns an index of photographs with columns for their sizes, (width, height) each."""
    for name, values in zip(_SIZE, zip(*sizes)):
        index = index.append_column(name, pa.array(values, pa.int64()))
    return index


def garments_of(dataset: PreparedDataset, records: np.ndarray) -> Garments:
    """Returns the garments of some photographs, clipped to them.

    Args:
      dataset: prepared dataset of photographs.
      records: int64 [n], record numbers.

    Returns:
      The garments that are at least partly inside their photograph.

    Raises:
      UserError: if the dataset is not one of photographs.
    """
    if _GARMENTS not in dataset.index.column_names:
        raise UserError(
            f"{dataset.directory}: contains single garments; a detector needs whole photographs, "
            "prepared with --photographs"
        )
    index = dataset.index.take(records)
    sizes = np.stack([index[name].to_numpy() for name in _SIZE], axis=1).astype(np.float64)
    found = [
        (place, *garment)
        for place, text in enumerate(index[_GARMENTS].to_pylist())
        for garment in json.loads(text)
    ]
    columns = list(zip(*found)) or [()] * 8
    places = np.array(columns[0], np.int64)
    verticals, items, splits = (np.array(texts, object) for texts in columns[1:4])
    pixels = np.array(columns[4:], np.float64).reshape(4, -1).T
    boxes = _to_square(pixels, sizes[places])
    whole = Garments(places, boxes, verticals, items, splits)
    is_inside = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    return Garments(*(values[is_inside] for values in whole))


def _to_square(pixels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns boxes in photographs of sizes [n, 2] as fractions of the squares around them."""
    both = np.concatenate([sizes, sizes], axis=1)
    longest = sizes.max(axis=1, keepdims=True)
    inside = np.clip(pixels, 0.0, both)
    return ((inside + (longest - both) / 2) / longest).astype(np.float32)


def from_square(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns boxes in squares as pixels of the upright photographs that were padded to them.

    Args:
      boxes: float [n, 4]: x_min, y_min, x_max, y_max as fractions of the square's side.
      sizes: [n, 2], width and height in pixels of each box's photograph.

    Returns:
      float64 [n, 4], clipped to the photograph.
    """
    both = np.concatenate([sizes, sizes], axis=1).astype(np.float64)
    longest = both.max(axis=1, keepdims=True)
    return np.clip(boxes * longest - (longest - both) / 2, 0.0, both)
