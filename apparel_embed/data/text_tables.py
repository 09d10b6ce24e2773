"""Reads CSV and Parquet files with every column as text, and numbers their rows.

Row N of a CSV file is the row that begins on line N, as a text editor counts; the header is line 1.
Row N of a Parquet file is its N-th row.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO, Union

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import is_remote, locate

# Manifest columns whose values are names.
NAME_COLUMNS = ("image", "item_id", "vertical", "split", "role")
UTF8 = "utf-8"
_PARQUET_SUFFIXES = (".parquet", ".pq")
_SIGNIFICANT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
_ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 24

Location = Union[str, "os.PathLike[str]"]
"""A file's path, or its URI."""


def is_parquet(path: Location) -> bool:
    """Returns whether the file name has a Parquet extension."""
    return str(path).lower().endswith(_PARQUET_SUFFIXES)


def read_parquet(path: Location) -> pa.Table:
    """Returns a Parquet file with every column as text.

    Raises:
      UserError: the file cannot be read, or a column has an unsupported type; see `as_texts`.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    return as_texts(path, table)


def read_parts(location: str) -> Iterator[pa.Table]:
    """Yields a CSV or Parquet file in parts, every column as text, without loading all of it.

    Raises:
      UserError: see `read_csv` and `read_parquet`.
    """
    system, path = locate(location)
    if is_parquet(location):
        first = 1
        try:
            with system.open_input_file(path) as file:
                for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
                    yield as_texts(location, pa.Table.from_batches([batch]), first)
                    first += batch.num_rows
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{location}: cannot be read as Parquet: {error}") from error
        return
    header = _header(location)
    try:
        with system.open_input_stream(path) as file:
            for batch in pyarrow.csv.open_csv(file, **_csv_options(header)):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _csv_error(location, header, error) from error


def as_texts(source: Location, table: pa.Table, first_row: int = 1) -> pa.Table:
    """Returns the table with every column as text, "" for null and NaN.

    A whole number in a floating-point column reads as an integer, 7 and not 7.0.

    Args:
      source: the file to name in errors.
      table: columns of strings, numbers, dates or booleans.
      first_row: the number of the table's first row in the file.

    Raises:
      UserError: a column has another type, a floating-point number is too large to represent
        neighbouring whole numbers exactly, or a number in a name column is not whole.
    """
    for number, field in enumerate(table.schema):
        try:
            column = table.column(number)
            if pa.types.is_dictionary(field.type):
                column = column.cast(field.type.value_type)
            if pa.types.is_floating(column.type):
                column = _float_texts(source, field.name, column, first_row)
            column = column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UserError(
                f"{source}: column {field.name!r} is {field.type}; expected text or numbers"
            ) from error
        table = table.set_column(number, field.name, pc.fill_null(column, ""))
    return table.replace_schema_metadata(None)


def _float_texts(
    source: Location, name: str, column: pa.ChunkedArray, first_row: int
) -> pa.ChunkedArray:
    """Returns a floating-point column as text, null for NaN; see `as_texts`."""
    numbers = column.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    limit = 2.0 ** _SIGNIFICANT_BITS[column.type]
    _refuse(
        (source, name, first_row),
        numbers,
        pc.greater_equal(pc.abs(numbers), limit),
        f"{column.type} is exact only for whole numbers below {limit:.0f}; write the column as "
        "text or integers",
    )
    whole = pc.equal(numbers, pc.floor(numbers))
    if name in NAME_COLUMNS:
        expected = "expected text or a whole number; write the column as text"
        _refuse((source, name, first_row), numbers, pc.invert(whole), expected)
    integers = pc.floor(numbers).cast(pa.int64()).cast(pa.string())
    if pc.all(whole).as_py():
        return integers
    # Arrow supports few operations on half floats.
    own = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    return pc.if_else(whole, integers, own.cast(pa.string()))


def _refuse(
    column: tuple[Location, str, int], numbers: pa.ChunkedArray, wrong: pa.ChunkedArray, why: str
) -> None:
    """Raises a UserError for the first row of the column where `wrong` is true."""
    index = pc.index(wrong, True).as_py()
    if index >= 0:
        source, name, first_row = column
        value = numbers[index].as_py()
        raise UserError(f"{source}: row {first_row + index}: column {name!r}: {value!r}; {why}")


def read_csv(path: Location, delimiter: str = ",", encoding: str = UTF8) -> pa.Table:
    """Returns a CSV file with every column as text.

    Args:
      path: the file, with a header line.
      delimiter: the cell separator, one character.
      encoding: the file's encoding, a Python codec name.

    Raises:
      UserError: the file cannot be read; the error names a row with the wrong number of cells.
    """
    header = _header(path, delimiter, encoding)
    try:
        return pyarrow.csv.read_csv(path, **_csv_options(header, delimiter, encoding))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _csv_error(path, header, error, delimiter, encoding) from error


def _header(path: Location, delimiter: str = ",", encoding: str = UTF8) -> list[str]:
    header = next(csv_rows(path, delimiter, encoding), (0, []))[1]
    if not header:
        raise UserError(f"{path}: the file is empty; expected a header line and rows")
    return header


def _csv_options(
    header: Sequence[str], delimiter: str = ",", encoding: str = UTF8
) -> dict[str, Any]:
    return {
        "read_options": pyarrow.csv.ReadOptions(block_size=_BYTES_AT_ONCE, encoding=encoding),
        "parse_options": pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
        ),
    }


def _csv_error(path: Location, header: Sequence[str], error: Exception, *form: str) -> UserError:
    """Returns the error for a CSV file, with the row's number; pyarrow counts within a block."""
    for line, cells in csv_rows(path, *form):
        if len(cells) != len(header):
            return UserError(
                f"{path}: row {line}: {len(cells)} cells, but the header has {len(header)}"
            )
    return UserError(f"{path}: cannot be read as CSV: {error}")


def csv_rows(
    path: Location, delimiter: str = ",", encoding: str = UTF8
) -> Iterator[tuple[int, list[str]]]:
    """Yields (first line number, cells) for the header and each non-blank row of a CSV file."""
    line = 1
    try:
        with open_text(path, encoding) as file:
            reader = csv.reader(file, delimiter=delimiter)
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise not_text(path, encoding) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except csv.Error as error:
        raise UserError(f"{path}: row {line}: cannot be read as CSV: {error}") from error


def open_text(path: Location, encoding: str = UTF8) -> TextIO:
    """Opens a text file, keeping its line endings and skipping a UTF-8 byte order mark."""
    encoding = "utf-8-sig" if encoding == UTF8 else encoding
    system, inner = locate(str(path))
    if is_remote(str(path)):
        return io.TextIOWrapper(system.open_input_stream(inner), encoding, newline="")
    return open(inner, encoding=encoding, newline="")


def not_text(path: Location, encoding: str = UTF8) -> UserError:
    """Returns the error, with the row, for a file that is not text in the given encoding."""
    return UserError(
        f"{path}: row {undecodable_row(path, encoding)}: not {encoding.upper()} text; save the "
        "file as UTF-8, or import it with its --encoding (cp1252 if Excel on Windows wrote it)"
    )


def undecodable_row(path: Location, encoding: str = UTF8) -> int | None:
    """Returns the number, from 1, of the first line that cannot be decoded; None if all can."""
    system, inner = locate(str(path))
    with system.open_input_stream(inner, compression=None) as file:
        content = file.read()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        return content[: error.start].decode(encoding).count("\n") + 1
    return None


def rows_in_file(
    path: Location,
    indices: Sequence[int] | np.ndarray,
    delimiter: str = ",",
    encoding: str = UTF8,
) -> list[int]:
    """Returns the row numbers in the file for rows of the table given by index from 0.

    In CSV files, blank lines and line breaks within quotes count.
    """
    if is_parquet(path):
        return [int(index) + 1 for index in indices]
    wanted = {int(index) for index in indices}
    last = max(wanted, default=-1)
    lines: dict[int, int] = {}
    for index, (line, _) in enumerate(csv_rows(path, delimiter, encoding)):
        if index - 1 in wanted:
            lines[index - 1] = line
        if index - 1 >= last:
            break
    return [lines[int(index)] for index in indices]


def all_rows_in_file(
    path: Path, total: int, delimiter: str = ",", encoding: str = UTF8
) -> np.ndarray:
    """Returns the row numbers in the file for all rows of a table, int64 [total]."""
    if is_parquet(path):
        return np.arange(1, total + 1)
    if count_lines(path, encoding) == total + 1:
        # One line per row: no blank lines and no line breaks within quotes.
        return np.arange(2, total + 2)
    return np.array(rows_in_file(path, range(total), delimiter, encoding), np.int64)


def count_lines(path: Path, encoding: str = UTF8) -> int:
    """Returns the number of lines in a file; the last one may lack a line ending."""
    if encoding != UTF8:
        with open(path, encoding=encoding, newline="\n") as text:
            return sum(1 for _ in text)
    ends, last = 0, b"\n"
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 24), b""):
            ends, last = ends + block.count(b"\n"), block[-1:]
    return ends + (last != b"\n")
