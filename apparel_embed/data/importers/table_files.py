"""Reading tables of any kind as texts: CSV, TSV, JSON lines, Parquet and Excel."""

from __future__ import annotations

import codecs
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.workbooks import read_workbook
from apparel_embed.data.manifest import BOX_COLUMNS
from apparel_embed.data.text_tables import (
    UTF8,
    all_rows_in_file,
    as_texts,
    count_lines,
    not_text,
    open_text,
    read_csv,
)

# In the order in which they win where a header has as many of one as of another.
_DELIMITERS = (",", ";", "\t", "|")
# How JSON's numbers that are none read; NaN is how data frames write a missing one.
_NOT_FINITE = {"NaN": None, "Infinity": "Infinity", "-Infinity": "-Infinity"}


@dataclasses.dataclass(frozen=True)
class TableFile:
    """A table as texts.

    Attributes:
      table: every column as text, "" where there is nothing.
      rows: int64 [rows], where each row stands in the file: the line for texts, counted from 1,
        the number of the row for Parquet.
      notes: what was left out.
    """

    table: pa.Table
    rows: np.ndarray
    notes: tuple[str, ...] = ()


def read_table_file(path: Path, encoding: str = UTF8) -> TableFile:
    """Reads a table by the ending of its name.

    `.csv`, `.tsv`, `.tab` and `.txt` are texts with a header line, their cells separated
    by tabs (`.tsv`, `.tab`) or by the comma, semicolon, tab or bar that is most frequent in the
    header; `.jsonl` and `.ndjson` have one JSON object a line; `.parquet` and `.pq` are Parquet;
    of `.xlsx` and `.xlsm` the first sheet is read. Columns that hold lists, objects or bytes and
    columns without a name are left out.

    Args:
      path: the file.
      encoding: of texts, a name that Python knows.

    Raises:
      UserError: the file cannot be read; the message names the row where that is known.
    """
    readers: dict[str, Callable[[Path, str], TableFile]] = {
        ".csv": _read_delimited,
        ".txt": _read_delimited,
        ".tsv": _read_delimited,
        ".tab": _read_delimited,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".parquet": _read_parquet,
        ".pq": _read_parquet,
        ".xlsx": _read_workbook,
        ".xlsm": _read_workbook,
    }
    if not path.exists():
        raise UserError(f"{path}: no such table")
    reader = readers.get(path.suffix.lower())
    if reader is None or path.is_dir():
        raise UserError(f"{path}: no table by its name; allowed: {', '.join(readers)}")
    read = reader(path, _known_encoding(encoding))
    names = read.table.column_names
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: column {name!r} is there twice; names must differ")
    if not read.table.num_rows:
        raise UserError(f"{path}: the table is empty; at least one row is needed")
    return read


def _known_encoding(encoding: str) -> str:
    """Returns Python's own name of an encoding."""
    try:
        "a".encode(encoding)
    except (LookupError, ValueError) as error:
        raise UserError(
            f"--encoding={encoding} is unknown; allowed are utf-8, utf-16, cp1252, shift_jis and "
            "whatever else Python knows"
        ) from error
    return codecs.lookup(encoding).name


def _refuse_encoding(path: Path, encoding: str) -> None:
    if encoding != UTF8:
        raise UserError(f"{path}: --encoding={encoding} is not allowed; it is for files of text")


def _read_workbook(path: Path, encoding: str) -> TableFile:
    _refuse_encoding(path, encoding)
    table, rows, notes = read_workbook(path)
    return TableFile(table, rows, notes)


def _read_delimited(path: Path, encoding: str) -> TableFile:
    delimiter = "\t" if path.suffix.lower() in (".tsv", ".tab") else _delimiter(path, encoding)
    table = read_csv(path, delimiter, encoding)
    rows = all_rows_in_file(path, table.num_rows, delimiter, encoding)
    # Where a data frame was written, its row numbers are a column without a name.
    unnamed = [number for number, name in enumerate(table.column_names) if not name.strip()]
    for number in reversed(unnamed):
        table = table.remove_column(number)
    notes = (f"left out: columns without a name: {len(unnamed)}",) if unnamed else ()
    return TableFile(table, rows, notes)


def _delimiter(path: Path, encoding: str) -> str:
    """Returns the most frequent one in the header line."""
    try:
        with open_text(path, encoding) as file:
            header = next((line for line in file if line.strip()), "")
    except UnicodeDecodeError as error:
        raise not_text(path, encoding) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return max(_DELIMITERS, key=re.sub('"[^"]*"', "", header).count)


def _read_parquet(path: Path, encoding: str) -> TableFile:
    _refuse_encoding(path, encoding)
    try:
        file = pq.ParquetFile(path)
        table, notes = _flat(file.read())
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {_one_line(error)}") from error
    return TableFile(as_texts(path, table), np.arange(1, table.num_rows + 1), notes)


def _read_json_lines(path: Path, encoding: str) -> TableFile:
    try:
        table = _read_json(path, encoding, None)
        dates = [field.name for field in table.schema if pa.types.is_timestamp(field.type)]
        if dates:
            # Texts that look like dates have become dates, and would be written another way.
            fields = [pa.field(f.name, pa.string()) for f in table.schema if f.name in dates]
            table = _read_json(path, encoding, pa.schema(fields))
        # Texts that are not UTF-8 are found only so.
        table.validate(full=True)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _json_error(path, encoding, error) from error
    table, notes = _flat(table)
    if count_lines(path, encoding) == table.num_rows:
        rows = np.arange(1, table.num_rows + 1)
    else:
        rows = np.fromiter((line for line, _ in _json_texts(path, encoding)), np.int64)
        if len(rows) != table.num_rows:
            # pyarrow takes two objects on a line, and one on two lines.
            raise _json_error(path, encoding, ValueError("one object a line is needed"))
    return TableFile(as_texts(path, _with_numbers_as_written(path, encoding, table)), rows, notes)


def _with_numbers_as_written(path: Path, encoding: str, table: pa.Table) -> pa.Table:
    """Returns the table with floating-point columns other than boxes as texts, digit for digit.

    One number with a point or beyond 64 bits makes pyarrow round those of the whole column.
    """
    names = [
        field.name
        for field in table.schema
        if pa.types.is_floating(field.type) and field.name not in BOX_COLUMNS
    ]
    if not names:
        return table
    written: dict[str, list[str | None]] = {name: [] for name in names}
    try:
        for _, text in _json_texts(path, encoding):
            row = json.loads(
                text, parse_int=str, parse_float=str, parse_constant=_NOT_FINITE.__getitem__
            )
            for name, cells in written.items():
                cells.append(row.get(name))
    except ValueError as error:
        raise _json_error(path, encoding, error) from error
    for name, cells in written.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(cells, pa.string()))
    return table


def _read_json(path: Path, encoding: str, schema: pa.Schema | None) -> pa.Table:
    text = None if encoding == UTF8 else path.read_bytes().decode(encoding).encode(UTF8)
    return pyarrow.json.read_json(
        path if text is None else pa.BufferReader(text),
        read_options=pyarrow.json.ReadOptions(block_size=1 << 24),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema),
    )


def _json_error(path: Path, encoding: str, error: Exception) -> UserError:
    """Returns what is wrong with JSON lines, with the line, which pyarrow counts in blocks."""
    kinds: dict[str, tuple[type, int]] = {}
    try:
        for line, text in _json_texts(path, encoding):
            try:
                value = json.loads(text, object_pairs_hook=_without_repeats)
            except ValueError as reason:
                return UserError(f"{path}: row {line}: is no JSON: {reason}")
            if not isinstance(value, dict):
                return UserError(f"{path}: row {line}: is no JSON object; one a line is needed")
            for name, cell in value.items():
                kind = float if type(cell) is int else type(cell)
                before, first = kinds.setdefault(name, (kind, line))
                if cell is not None and kind is not before and before is not type(None):
                    return UserError(
                        f"{path}: row {line}: column {name!r}: {cell!r}, which is of another kind "
                        f"than in row {first}; write all of them as texts"
                    )
                if before is type(None):
                    kinds[name] = (kind, line)
    except UnicodeDecodeError:
        return not_text(path, encoding)
    except OSError as reason:
        return UserError(f"{path}: cannot be read: {reason.strerror}")
    if not kinds:
        return UserError(f"{path}: the table is empty; at least one row is needed")
    return UserError(f"{path}: cannot be read as JSON lines: {_one_line(error)}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises a ValueError if a name is there twice."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return dict(pairs)


def _json_texts(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of the lines that are not blank."""
    with open_text(path, encoding) as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield number, text


def _flat(table: pa.Table) -> tuple[pa.Table, tuple[str, ...]]:
    """Returns the columns that can be texts, and a note on the others."""
    others = [
        field.name
        for field in table.schema
        if pa.types.is_nested(field.type)
        or pa.types.is_binary(field.type)
        or pa.types.is_large_binary(field.type)
    ]
    if not others:
        return table, ()
    names = ", ".join(others)
    return table.drop_columns(others), (f"left out: columns of lists, objects or bytes: {names}",)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
