"""Tables in files, CSV and Parquet, as texts; and where their rows stand in the file.

Rows are numbered as a text editor shows them: row N of a CSV file begins on its line N, the header
being line 1. Of a Parquet file, which no editor shows, it is the N-th.
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

# Columns of a manifest whose values are names.
NAME_COLUMNS = ("image", "item_id", "vertical", "split", "role")
UTF8 = "utf-8"
_PARQUET_SUFFIXES = (".parquet", ".pq")
_SIGNIFICANT_BITS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}
_ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 24

Location = Union[str, "os.PathLike[str]"]
"""A file's path, or its URI."""


def is_parquet(path: Location) -> bool:
    """Returns whether the file is Parquet, by its name."""
    return str(path).lower().endswith(_PARQUET_SUFFIXES)


def read_parquet(path: Location) -> pa.Table:
    """Returns a Parquet file with every column as text.

    Raises:
      UserError: it cannot be read, or a column holds something else than texts and numbers.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    return as_texts(path, table)


def read_parts(location: str) -> Iterator[pa.Table]:
    """Yields a CSV or Parquet file part by part, every column as text; it may be beyond memory.

    Raises:
      UserError: as `read_csv` and `read_parquet`.
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
      source: the file, as errors name it.
      table: columns of texts, numbers, dates or truth values.
      first_row: where the table's first row stands in the file.

    Raises:
      UserError: a column holds something else, a floating-point number is so large that whole
        numbers next to it are rounded to it, or one in a column of names is not whole.
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
                f"{source}: column {field.name!r} is {field.type}; texts and numbers are allowed"
            ) from error
        table = table.set_column(number, field.name, pc.fill_null(column, ""))
    return table.replace_schema_metadata(None)


def _float_texts(
    source: Location, name: str, column: pa.ChunkedArray, first_row: int
) -> pa.ChunkedArray:
    """Returns the texts of a floating-point column, null for NaN; see `as_texts`."""
    numbers = column.cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    limit = 2.0 ** _SIGNIFICANT_BITS[column.type]
    _refuse(
        (source, name, first_row),
        numbers,
        pc.greater_equal(pc.abs(numbers), limit),
        f"column is {column.type}, which holds whole numbers exactly below {limit:.0f} only; write "
        "it as texts or integers",
    )
    whole = pc.equal(numbers, pc.floor(numbers))
    if name in NAME_COLUMNS:
        allowed = "a text or a whole number is needed; write the column as texts"
        _refuse((source, name, first_row), numbers, pc.invert(whole), allowed)
    integers = pc.floor(numbers).cast(pa.int64()).cast(pa.string())
    if pc.all(whole).as_py():
        return integers
    # Half floats have few functions of their own.
    own = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    return pc.if_else(whole, integers, own.cast(pa.string()))


def _refuse(
    column: tuple[Location, str, int], numbers: pa.ChunkedArray, wrong: pa.ChunkedArray, why: str
) -> None:
    """Raises a UserError for the first row of a file's column where `wrong` is true."""
    index = pc.index(wrong, True).as_py()
    if index >= 0:
        source, name, first_row = column
        value = numbers[index].as_py()
        raise UserError(f"{source}: row {first_row + index}: column {name!r}: {value!r}; {why}")


def read_csv(path: Location, delimiter: str = ",", encoding: str = UTF8) -> pa.Table:
    """Returns a CSV file with every column as text.

    Args:
      path: the file, with a header line.
      delimiter: what separates cells, one character.
      encoding: of the file, a name that Python knows.

    Raises:
      UserError: it cannot be read; the message names the row where the number of cells is wrong.
    """
    header = _header(path, delimiter, encoding)
    try:
        return pyarrow.csv.read_csv(path, **_csv_options(header, delimiter, encoding))
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _csv_error(path, header, error, delimiter, encoding) from error


def _header(path: Location, delimiter: str = ",", encoding: str = UTF8) -> list[str]:
    header = next(csv_rows(path, delimiter, encoding), (0, []))[1]
    if not header:
        raise UserError(f"{path}: is empty; a header line and rows are needed")
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
    """Returns what is wrong with a CSV file, with the row, which pyarrow counts in blocks."""
    for line, cells in csv_rows(path, *form):
        if len(cells) != len(header):
            return UserError(
                f"{path}: row {line}: {len(cells)} cells, but the header has {len(header)}"
            )
    return UserError(f"{path}: cannot be read as CSV: {error}")


def csv_rows(
    path: Location, delimiter: str = ",", encoding: str = UTF8
) -> Iterator[tuple[int, list[str]]]:
    """Yields (line on which the row begins, cells) of a CSV file, header first, no blank lines."""
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
    """Opens a file of text, line ends as they are, without a mark of its encoding."""
    encoding = "utf-8-sig" if encoding == UTF8 else encoding
    system, inner = locate(str(path))
    if is_remote(str(path)):
        return io.TextIOWrapper(system.open_input_stream(inner), encoding, newline="")
    return open(inner, encoding=encoding, newline="")


def not_text(path: Location, encoding: str = UTF8) -> UserError:
    """Returns the error for a file that is no text in its encoding; it names the row."""
    return UserError(
        f"{path}: row {undecodable_row(path, encoding)}: is not {encoding.upper()} text; save it "
        "in UTF-8, or import it with its --encoding (cp1252 if Excel on Windows wrote it)"
    )


def undecodable_row(path: Location, encoding: str = UTF8) -> int | None:
    """Returns the first line of a file that is no text, counted from 1; None if all are."""
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
    """Returns the numbers in the file of rows of the table, given by their indices from 0.

    In CSV, blank lines and line ends within quotes count.
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
    """Returns the numbers of all rows of a table in its file, int64 [total]."""
    if is_parquet(path):
        return np.arange(1, total + 1)
    if count_lines(path, encoding) == total + 1:
        # A line each behind the header: none ends within quotes, none is blank.
        return np.arange(2, total + 2)
    return np.array(rows_in_file(path, range(total), delimiter, encoding), np.int64)


def count_lines(path: Path, encoding: str = UTF8) -> int:
    """Returns the number of lines of a file, the last one with or without an end."""
    if encoding != UTF8:
        with open(path, encoding=encoding, newline="\n") as text:
            return sum(1 for _ in text)
    ends, last = 0, b"\n"
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 24), b""):
            ends, last = ends + block.count(b"\n"), block[-1:]
    return ends + (last != b"\n")
