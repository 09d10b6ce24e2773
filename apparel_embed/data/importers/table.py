"""Any table of pictures, or a folder of pictures whose names tell all there is to know.

What the columns mean is said by flags: see `apparel_embed.data.importers.derive`.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, Imported
from apparel_embed.data.importers.table_files import read_table_file
from apparel_embed.data.importers.walk import LeftOut, pictures_below
from apparel_embed.data.text_tables import UTF8


@dataclasses.dataclass(frozen=True)
class TableOptions:
    """Where the table is.

    Attributes:
      table: CSV, TSV, JSON lines, Parquet or Excel, see `read_table_file`; None for a table of the
        pictures below the root, with the column `image` alone.
      vertical: the vertical of all rows; None where the table tells.
      encoding: of a table that is text.
    """

    table: Path | None = None
    vertical: str | None = None
    encoding: str = UTF8


def convert(root: Path, options: TableOptions | None = None) -> Imported:
    """Returns the table's rows with all their columns; which is which is still to be said.

    Args:
      root: where paths of pictures begin.
      options: where the table is.

    Raises:
      UserError: the table cannot be read, a column has a reserved name, or there is no picture.
    """
    options = options or TableOptions()
    imported = _from_file(root, options) if options.table else _from_pictures(root)
    if options.vertical is None:
        return imported
    table = imported.table
    if "vertical" in table.column_names:
        table = table.drop_columns(["vertical"])
    constant = pa.repeat(pa.scalar(options.vertical), table.num_rows)
    return dataclasses.replace(imported, table=table.append_column("vertical", constant))


def _from_pictures(root: Path) -> Imported:
    left_out = LeftOut()
    images = pictures_below(root, left_out)
    if not images:
        raise UserError("; ".join([f"{root}: no pictures below it", *left_out.notes()]))
    columns = {"image": images, SOURCE_FILE: images, SOURCE_ROW: pa.nulls(len(images), pa.int64())}
    return Imported(pa.table(columns), {"pictures": len(images)}, left_out.notes())


def _from_file(root: Path, options: TableOptions) -> Imported:
    path = Path(options.table or "")
    read = read_table_file(path, options.encoding)
    table = read.table
    for name in (SOURCE_FILE, SOURCE_ROW):
        if name in table.column_names:
            raise UserError(f"{path}: column {name!r} has a reserved name; rename it")
    file = os.path.relpath(path, root)
    file = os.path.abspath(path) if file.startswith("..") else file
    table = table.append_column(SOURCE_FILE, pa.repeat(pa.scalar(file), table.num_rows))
    table = table.append_column(SOURCE_ROW, pa.array(read.rows, pa.int64()))
    return Imported(table, {"pictures": table.num_rows}, read.notes)
