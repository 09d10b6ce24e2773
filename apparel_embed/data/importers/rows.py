"""The rows of a dataset while it is imported, and the source of each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import BOX_COLUMNS, Place

SOURCE_FILE, SOURCE_ROW = "source_file", "source_row"
"""Columns with the source of a row, for error messages; not written to manifests."""

Box = tuple[float, float, float, float]


class Row(NamedTuple):
    """A row of a published dataset; the fields are columns of `Rows.table`."""

    image: str
    item_id: str
    vertical: str
    split: str
    role: str
    box: Box | None
    source_file: str
    source_row: int | None


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Returns the rows as a `Rows.table`."""
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
    """Returns the error for a value: its place, the value, and what is expected."""
    return UserError(f"{place}: column {column!r}: {value!r}; {expected}")


class Rows:
    """Rows of a dataset, which an import checks, changes and filters.

    Attributes:
      table: one row per image or garment. Strings `image` (relative to the dataset's root, with
        forward slashes, or absolute, or a URI), `item_id`, `vertical`, and other columns to keep;
        optional `split`, `role` and the box `x_min`, `y_min`, `x_max`, `y_max` (float64, null if
        missing, all four columns or none). `source_file` (string, relative to the root) and
        `source_row` (int64: the line from 1, or the element of a JSON list from 0; null for files
        without rows) are the row's source.
      root: the dataset's root.
      counts: numbers found, under the names of the published counts, e.g. `images`, `items`,
        `train images`.
      notes: what was left out and other remarks for the user, one line each.
    """

    def __init__(
        self, table: pa.Table, root: Path, counts: Mapping[str, int], notes: Iterable[str] = ()
    ) -> None:
        self.table = table
        self.root = root
        self.counts = counts
        self.notes = list(notes)

    @property
    def names(self) -> list[str]:
        """The column names without the source columns."""
        return [name for name in self.table.column_names if name not in (SOURCE_FILE, SOURCE_ROW)]

    def places(self, table: pa.Table, indices: Sequence[int] | np.ndarray) -> list[Place]:
        """Returns the places, in the dataset's files, of rows of a table with source columns."""
        rows = table.select([SOURCE_FILE, SOURCE_ROW]).take(pa.array(indices)).to_pylist()
        return [
            Place(str(self.root / file), row, "element" if file.endswith(".json") else "row")
            for file, row in (source.values() for source in rows)
        ]

    def wrong(self, index: int, column: str, expected: str, value: Any = None) -> UserError:
        """Returns the error for a value in a row, by default the one in the table."""
        value = self.table[column][int(index)].as_py() if value is None else value
        return wrong_value(self.places(self.table, [index])[0], column, value, expected)

    def put(self, name: str, values: pa.ChunkedArray | pa.Array) -> None:
        """Adds a column, or replaces the one with that name."""
        if name in self.table.column_names:
            place = self.table.column_names.index(name)
            self.table = self.table.set_column(place, name, values)
        else:
            self.table = self.table.append_column(name, values)

    def leave_out(self, wrong: pa.ChunkedArray | pa.Array, note: str) -> None:
        """Leaves rows out and adds a note."""
        self.table = self.table.filter(pc.invert(wrong))
        self.notes.append(f"left out: {note}")

    def column(self, name: str, flag: str) -> pa.ChunkedArray:
        """Returns a column; raises a UserError, which names the flag, if it does not exist."""
        if name not in self.names:
            raise UserError(f"{flag}: no column {name!r}; found: {', '.join(self.names)}")
        return self.table[name]

    def texts(self, name: str, flag: str) -> pa.ChunkedArray:
        """Returns a text column; raises a UserError if it does not exist or contains numbers."""
        column = self.column(name, flag)
        if not pa.types.is_string(column.type):
            raise UserError(f"{flag}: column {name!r} contains numbers; expected a text column")
        return column
