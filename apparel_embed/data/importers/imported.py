"""What a converter finds in a dataset on disk: rows of a manifest, and where each comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from apparel_embed.common.errors import UserError

SOURCE_FILE = "source_file"
SOURCE_ROW = "source_row"
"""Columns that tell where a row comes from; checks name them, manifests do not have them."""


def refuse_numbers(table: pa.Table, name: str, flag: str) -> None:
    """Raises a UserError, which names the flag, if a column holds no texts; boxes do not."""
    if not pa.types.is_string(table.schema.field(name).type):
        raise UserError(f"{flag}: column {name!r} holds numbers; name one that holds texts")


@dataclasses.dataclass(frozen=True)
class Imported:
    """Rows that a converter found; nothing in them has been checked against the pictures yet.

    Attributes:
      table: one row per picture or garment. Strings `image` (relative to the dataset's root, with
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
