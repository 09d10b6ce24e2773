"""Tables in files, CSV and Parquet, as texts; and where their rows stand in the file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from apparel_embed.errors import UserError

_PARQUET_SUFFIXES = (".parquet", ".pq")


def is_parquet(path: Path) -> bool:
    """Returns whether the file is Parquet, by its name."""
    return path.suffix.lower() in _PARQUET_SUFFIXES


def read_parquet(path: Path) -> pa.Table:
    """Returns a Parquet file with every column as text.

    Raises:
      UserError: it cannot be read, or a column holds something else than texts and numbers.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    return as_texts(path, table)


def as_texts(path: Path, table: pa.Table) -> pa.Table:
    """Returns the table with every column as text, "" for null.

    Raises:
      UserError: a column holds something else than texts and numbers.
    """
    for number, field in enumerate(table.schema):
        try:
            column = table.column(number).cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{path}: column {field.name!r} is {field.type}; texts and numbers are allowed"
            ) from error
        table = table.set_column(number, field.name, pc.fill_null(column, ""))
    return table.replace_schema_metadata(None)


def read_csv(path: Path, delimiter: str = ",") -> pa.Table:
    """Returns a CSV file with every column as text.

    Args:
      path: the file: UTF-8, a header line.
      delimiter: what separates cells, one character.

    Raises:
      UserError: it cannot be read; the message names the row where the number of cells is wrong.
    """
    header = next(csv_rows(path, delimiter), (0, []))[1]
    if not header:
        raise UserError(f"{path}: is empty; a header line and rows are needed")
    try:
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=1 << 24),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        for line, cells in csv_rows(path, delimiter):
            if len(cells) != len(header):
                raise UserError(
                    f"{path}: row {line}: {len(cells)} cells, but the header has {len(header)}"
                ) from error
        raise UserError(f"{path}: cannot be read as CSV: {error}") from error


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yields (line on which the row begins, cells) of a CSV file, header first, no blank lines."""
    line = 1
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        row = undecodable_row(path)
        raise UserError(f"{path}: row {row}: is not UTF-8 text; save it as CSV in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise UserError(f"{path}: row {line}: cannot be read as CSV: {error}") from error


def undecodable_row(path: Path) -> int | None:
    """Returns the first line of a file that is not UTF-8, counted from 1; None if all are."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return None


def rows_in_file(
    path: str | os.PathLike[str], indices: Sequence[int] | np.ndarray, delimiter: str = ","
) -> list[int]:
    """Returns where rows of the table stand in the file, as error messages count them.

    Args:
      path: CSV or Parquet.
      indices: row indices of the table, from 0.
      delimiter: what separates the cells of a CSV file.

    Returns:
      For CSV the line on which each row begins (blank lines and line ends within quotes
      count), for Parquet the index plus 1.
    """
    if is_parquet(Path(path)):
        return [int(index) + 1 for index in indices]
    wanted = {int(index) for index in indices}
    last = max(wanted, default=-1)
    lines: dict[int, int] = {}
    for index, (line, _) in enumerate(csv_rows(Path(path), delimiter)):
        if index - 1 in wanted:
            lines[index - 1] = line
        if index - 1 >= last:
            break
    return [lines[int(index)] for index in indices]


def all_rows_in_file(path: Path, total: int, delimiter: str = ",") -> np.ndarray:
    """Returns where all rows of a table stand in its file, see `rows_in_file`.

    Args:
      path: CSV or Parquet.
      total: number of the table's rows.
      delimiter: what separates the cells of a CSV file.

    Returns:
      int64 [total].
    """
    if is_parquet(path):
        return np.arange(1, total + 1)
    if count_lines(path) == total + 1:
        # A line each behind the header: none ends within quotes, none is blank.
        return np.arange(2, total + 2)
    return np.array(rows_in_file(path, range(total), delimiter), np.int64)


def count_lines(path: Path) -> int:
    """Returns the number of lines of a file, the last one with or without an end."""
    ends, last = 0, b"\n"
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 24), b""):
            ends, last = ends + block.count(b"\n"), block[-1:]
    return ends + (last != b"\n")
