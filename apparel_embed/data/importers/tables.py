"""Any table of images, or a folder of images whose names contain all labels.

Flags define what the columns mean: see `apparel_embed.data.importers.derive`.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.data.importers.image_files import LeftOut, images_below
from apparel_embed.data.importers.layout import Format, LayoutOptions
from apparel_embed.data.importers.rows import SOURCE_FILE, SOURCE_ROW, Rows
from apparel_embed.data.text_tables import (
    UTF8,
    all_rows_in_file,
    as_texts,
    not_text,
    open_text,
    read_csv,
)

# If several are equally frequent in a header, the first one wins.
_DELIMITERS = (",", ";", "\t", "|")
# Excel keeps 15 digits of a number and replaces the others with zeros.
_EXACT_BELOW = 10**15


class TableFile(NamedTuple):
    """A table as text.

    Attributes:
      table: every column as text, "" for missing values.
      rows: int64 [rows], each row's number in the file, from 1: the line in text files, the row
        in Parquet and Excel files.
      notes: what was left out.
    """

    table: pa.Table
    rows: np.ndarray
    notes: tuple[str, ...]


def convert(root: Path, options: LayoutOptions) -> Rows:
    """Returns the table's rows with all their columns, for `derive` to interpret.

    Raises:
      UserError: the table cannot be read, a column has a reserved name, or no image is found.
    """
    if options.table is None:
        left_out = LeftOut()
        images = images_below(root, left_out)
        notes = left_out.notes()
        if not images:
            raise UserError("; ".join([f"{root}: no images found below it", *notes]))
        table = pa.table({"image": images, SOURCE_FILE: images})
        table = table.append_column(SOURCE_ROW, pa.nulls(len(images), pa.int64()))
    else:
        table, rows, notes = read_table_file(options.table, options.encoding)
        for name in (SOURCE_FILE, SOURCE_ROW):
            if name in table.column_names:
                raise UserError(f"{options.table}: column {name!r} has a reserved name; rename it")
        file = os.path.relpath(options.table, root)
        file = os.path.abspath(options.table) if file.startswith("..") else file
        table = table.append_column(SOURCE_FILE, pa.repeat(pa.scalar(file), table.num_rows))
        table = table.append_column(SOURCE_ROW, pa.array(rows, pa.int64()))
    if options.vertical is not None:
        if "vertical" in table.column_names:
            table = table.drop_columns(["vertical"])
        constant = pa.repeat(pa.scalar(options.vertical), table.num_rows)
        table = table.append_column("vertical", constant)
    return Rows(table, root, {"images": table.num_rows}, notes)


def read_table_file(path: Path, encoding: str = UTF8) -> TableFile:
    """Reads a table in the format given by its extension.

    `.csv`, `.tsv`, `.tab` and `.txt` are text with a header line, cells separated by tabs (`.tsv`,
    `.tab`) or by whichever of comma, semicolon, tab and bar is most frequent in the header.
    `.jsonl` and `.ndjson` have one JSON object per line; `.parquet` and `.pq` are Parquet; `.xlsx`
    and `.xlsm` are Excel workbooks, whose first sheet is read. Columns of lists, objects or bytes
    and columns without a name are left out.

    Args:
      path: the file.
      encoding: the encoding of text files, a Python codec name.

    Raises:
      UserError: the file cannot be read; the error names the row if it is known.
    """
    if not path.exists():
        raise UserError(f"{path}: no such table")
    suffix = path.suffix.lower()
    if suffix not in _READERS or path.is_dir():
        raise UserError(f"{path}: not a table file; expected one of {', '.join(_READERS)}")
    try:
        "a".encode(encoding)
        encoding = codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise UserError(
            f"--encoding={encoding} is unknown; expected a Python codec such as utf-8, utf-16, "
            "cp1252 or shift_jis"
        ) from error
    if _READERS[suffix] in (_read_parquet, _read_workbook) and encoding != UTF8:
        raise UserError(f"{path}: --encoding={encoding} applies to text files only; omit it")
    table, rows, notes = _READERS[suffix](path, encoding)
    if not table.num_rows:
        raise UserError(f"{path}: the table is empty; expected at least one row")
    # Data frames write their index as a column without a name.
    named = [place for place, name in enumerate(table.column_names) if name.strip()]
    unnamed = table.num_columns - len(named)
    if unnamed:
        notes = (f"left out: columns without a name: {unnamed}", *notes)
    table = table.select(named)
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise UserError(f"{path}: column {name!r} appears twice; rename one")
    return TableFile(table, rows, notes)


def _read_delimited(path: Path, encoding: str) -> TableFile:
    delimiter = "\t"
    if path.suffix.lower() not in (".tsv", ".tab"):
        header = next((line for _, line in _lines(path, encoding)), "")
        delimiter = max(_DELIMITERS, key=re.sub('"[^"]*"', "", header).count)
    table = read_csv(path, delimiter, encoding)
    return TableFile(table, all_rows_in_file(path, table.num_rows, delimiter, encoding), ())


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields number and text of each non-blank line."""
    try:
        with open_text(path, encoding) as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise not_text(path, encoding) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _read_parquet(path: Path, encoding: str) -> TableFile:
    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {one_line(error)}") from error
    others = [
        field.name
        for field in table.schema
        if pa.types.is_nested(field.type)
        or pa.types.is_binary(field.type)
        or pa.types.is_large_binary(field.type)
    ]
    table = as_texts(path, table.drop_columns(others))
    return TableFile(table, np.arange(1, table.num_rows + 1), _left_out(others))


def _left_out(names: list[str]) -> tuple[str, ...]:
    note = f"left out: columns of lists, objects or bytes: {', '.join(names)}"
    return (note,) if names else ()


def _text(value: Any) -> str:
    """Returns a value of JSON or Excel as text."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read_json_lines(path: Path, encoding: str) -> TableFile:
    rows: list[int] = []
    columns: dict[str, list[str]] = {}
    nested: dict[str, None] = {}
    for row, text in _lines(path, encoding):
        for name, cell in _json_object(path, row, text).items():
            if isinstance(cell, (dict, list)):
                nested[name] = None
            column = columns.setdefault(name, [])
            column += [""] * (len(rows) - len(column))
            column.append(_text(cell))
        rows.append(row)
    texts = {
        name: pa.array(column + [""] * (len(rows) - len(column)), pa.string())
        for name, column in columns.items()
        if name not in nested
    }
    return TableFile(pa.table(texts), np.array(rows, np.int64), _left_out(list(nested)))


def _json_object(path: Path, row: int, text: str) -> dict[str, Any]:
    """Returns the JSON object on a line, with numbers as they are written."""
    try:
        value = _JSON.decode(text)
        if "\\u" in text:
            # JSON accepts half of a surrogate pair; UTF-8 does not.
            json.dumps(value, ensure_ascii=False).encode(UTF8)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: row {row}: invalid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: row {row}: expected a JSON object")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises a ValueError if a name is repeated."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} appears twice")
    return value


_JSON = json.JSONDecoder(
    # Numbers keep their digits as written; data frames write NaN for missing values.
    parse_int=str,
    parse_float=str,
    parse_constant=lambda name: None if name == "NaN" else name,
    object_pairs_hook=_without_repeats,
)


def _read_workbook(path: Path, encoding: str) -> TableFile:
    """Reads the first sheet of a workbook; its first non-blank row names the columns.

    Numbers with a format of zeros only are padded as Excel shows them, `007`. Formulas have the
    value that Excel last computed.
    """
    try:
        with warnings.catch_warnings():
            # openpyxl warns about styles and data validation that it does not support.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                sheets = book.worksheets
                rows = list(_sheet_rows(path, sheets[0])) if sheets else []
            finally:
                book.close()
    except UserError:
        raise
    except Exception as error:  # Corrupt files make openpyxl raise errors of many types.
        reason = one_line(error)
        raise UserError(f"{path}: cannot be read as an Excel workbook: {reason}") from error
    if not rows:
        raise UserError(f"{path}: the first sheet is empty; expected a header row and rows")
    numbers, cells = zip(*rows)
    # Sheets are padded with empty columns.
    columns = [column for column in itertools.zip_longest(*cells, fillvalue="") if any(column)]
    table = pa.Table.from_arrays(
        [pa.array(column[1:], pa.string()) for column in columns], [column[0] for column in columns]
    )
    notes: tuple[str, ...] = ()
    if len(sheets) > 1:
        others = ", ".join(sheet.title for sheet in sheets[1:])
        notes = (f"left out: sheets other than {sheets[0].title}: {others}",)
    return TableFile(table, np.array(numbers[1:], np.int64), notes)


def _sheet_rows(path: Path, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields number and cells of each non-blank row."""
    # Some programs write sheet dimensions that are too small.
    sheet.reset_dimensions()
    for number, cells in enumerate(sheet.iter_rows(), 1):
        texts = [_cell_text(path, number, cell) for cell in cells]
        if any(text.strip() for text in texts):
            yield number, texts


def _cell_text(path: Path, row: int, cell: Any) -> str:
    """Returns a cell as text; raises a UserError for a number with more digits than Excel keeps."""
    value = cell.value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _text(value)
    if not abs(value) < _EXACT_BELOW:
        raise UserError(
            f"{path}: row {row}: column {cell.column_letter}: {value!r}; Excel keeps only 15 "
            "digits of a number; format the column as text and fill it again"
        )
    if value != int(value):
        return repr(value)
    zeros = re.fullmatch("0+", cell.number_format or "")
    return str(int(value)).zfill(len(zeros[0]) if zeros else 0)


_READERS: Mapping[str, Callable[[Path, str], TableFile]] = {
    **dict.fromkeys((".csv", ".txt", ".tsv", ".tab"), _read_delimited),
    **dict.fromkeys((".jsonl", ".ndjson"), _read_json_lines),
    **dict.fromkeys((".parquet", ".pq"), _read_parquet),
    **dict.fromkeys((".xlsx", ".xlsm"), _read_workbook),
}

FORMAT = Format(convert, "any table of images, or images with structured file names")
