"""Rows of a dataset on their way into a manifest, and what to tell the user of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, wrong_value
from apparel_embed.data.manifest import Place


class Rows:
    """Rows that are checked, changed and left out, step by step.

    Attributes:
      table: the rows, with their sources.
      root: the dataset's root.
      notes: what was left out and what else the user should know, a line each.
    """

    def __init__(self, table: pa.Table, root: Path, notes: Iterable[str] = ()) -> None:
        self.table = table
        self.root = root
        self.notes = list(notes)

    @property
    def names(self) -> list[str]:
        """The columns but for the sources."""
        return [name for name in self.table.column_names if name not in (SOURCE_FILE, SOURCE_ROW)]

    def places(self, table: pa.Table, indices: Sequence[int] | np.ndarray) -> list[Place]:
        """Returns where rows of a table with sources stand in the dataset's own files."""
        rows = table.select([SOURCE_FILE, SOURCE_ROW]).take(pa.array(indices)).to_pylist()
        return [
            Place(str(self.root / file), row, "element" if file.endswith(".json") else "row")
            for file, row in (source.values() for source in rows)
        ]

    def wrong(self, index: int, column: str, expected: str, value: Any = None) -> UserError:
        """Returns the error for a value in a row, the one in the table unless it is given."""
        value = self.table[column][int(index)].as_py() if value is None else value
        return wrong_value(self.places(self.table, [index])[0], column, value, expected)

    def put(self, name: str, values: pa.ChunkedArray | pa.Array) -> None:
        """Adds a column, in place of one of that name."""
        if name in self.table.column_names:
            place = self.table.column_names.index(name)
            self.table = self.table.set_column(place, name, values)
        else:
            self.table = self.table.append_column(name, values)

    def leave_out(self, wrong: pa.ChunkedArray | pa.Array, note: str) -> None:
        """Leaves rows out, and notes it."""
        self.table = self.table.filter(pc.invert(wrong))
        self.notes.append(f"left out: {note}")

    def column(self, name: str, flag: str) -> pa.ChunkedArray:
        """Returns a column; raises a UserError, which names the flag, if there is none."""
        if name not in self.names:
            raise UserError(f"{flag}: no column {name!r}; there are {', '.join(self.names)}")
        return self.table[name]

    def texts(self, name: str, flag: str) -> pa.ChunkedArray:
        """Returns a column of texts; raises a UserError if there is none, or one of numbers."""
        column = self.column(name, flag)
        if not pa.types.is_string(column.type):
            raise UserError(f"{flag}: column {name!r} holds numbers; name one that holds texts")
        return column
