"""What a converter is told, and what it finds: rows of a manifest, and where each comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.manifest import BOX_COLUMNS, Place
from apparel_embed.data.text_tables import UTF8

ERROR, SKIP = "error", "skip"
"""What becomes of rows that something is wrong with."""

SOURCE_FILE, SOURCE_ROW = "source_file", "source_row"
"""Columns that tell where a row comes from; checks name them, manifests do not have them."""

Box = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class LayoutOptions:
    """What single layouts are told; each looks at its own."""

    table: Path | None = setting(
        None,
        "--format=table: CSV, TSV, JSON lines (.jsonl), Parquet or Excel (.xlsx) file with a row "
        "per picture; without, the pictures below --root are the rows, with the column image alone",
    )
    vertical: str | None = setting(
        None, "--format=folders and table: the vertical of all rows; folders are then items"
    )
    encoding: str = setting(
        UTF8, "--format=table: encoding of a --table that is text, such as cp1252 or utf-16"
    )
    image_dir: str | None = setting(
        None,
        "--format=deepfashion_in_shop and street2shop: directory of the pictures below --root, by "
        "default img (the other is img_highres) and images",
    )
    separate_genders: bool = setting(
        True, "--format=deepfashion_in_shop: whether clothes of men and women are verticals apart"
    )


@dataclasses.dataclass(frozen=True)
class Imported:
    """Rows that a converter found; nothing in them has been checked against the images yet.

    Attributes:
      table: one row per image or garment. Strings `image` (relative to the dataset's root, with
        forward slashes, or absolute, or a URI), `item_id`, `vertical`, and any more columns to
        keep; `split` and `role` where the dataset knows them; the box `x_min`, `y_min`, `x_max`,
        `y_max` as float64, null where there is none, all four or no column. `source_file` (string,
        relative to the root) and `source_row` (int64, the line counted from 1, or the element of a
        JSON list counted from 0; null where a file has no rows) say where a row comes from.
      counts: what was found, by the names under which it was published, e.g. `pictures`, `items`,
        `train pictures`.
      notes: lines to tell the user, e.g. how many entries were left out and why.
    """

    table: pa.Table
    counts: Mapping[str, int]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Format:
    """A layout of datasets.

    Attributes:
      convert: returns the rows found below a root, or raises a UserError that names file and row.
      layout: what is where below the root, in a few words.
      published: counts that were published with the dataset, by the names that `convert` gives.
      missing: what becomes of rows without an image unless the user says: "error" or "skip".
    """

    convert: Callable[[Path, LayoutOptions], Imported]
    layout: str
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: str = ERROR


class Row(NamedTuple):
    """A row of a published dataset; the fields are those of `Imported.table`."""

    image: str
    item_id: str
    vertical: str
    split: str
    role: str
    box: Box | None
    source_file: str
    source_row: int | None


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Returns the rows as the table of an `Imported`."""
    columns = {
        name: pa.array([row[place] for row in rows], pa.string())
        for place, name in enumerate(("image", "item_id", "vertical", "split", "role"))
    }
    for place, name in enumerate(BOX_COLUMNS):
        edges = [row.box[place] if row.box else None for row in rows]
        columns[name] = pa.array(edges, pa.float64())
    columns[SOURCE_FILE] = pa.array([row.source_file for row in rows], pa.string())
    columns[SOURCE_ROW] = pa.array([row.source_row for row in rows], pa.int64())
    return pa.table(columns)


def wrong_value(place: Place | str, column: str, value: Any, expected: str) -> UserError:
    """Returns the error for a value: where it stands, what it is, and what is expected."""
    return UserError(f"{place}: column {column!r}: {value!r}; {expected}")
