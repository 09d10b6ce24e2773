"""Reading the first sheet of an Excel workbook as texts."""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import openpyxl
import pyarrow as pa
from openpyxl.utils.exceptions import InvalidFileException

from apparel_embed.common.errors import UserError

# Excel keeps 15 digits of a number and makes zeros of the others.
_EXACT_BELOW = 10**15


def read_workbook(path: Path) -> tuple[pa.Table, np.ndarray, tuple[str, ...]]:
    """Reads the first sheet of a workbook; its first row that is not blank names the columns.

    Numbers read as Excel shows them where their format is a row of zeros, `007`; formulas as what
    Excel last made of them.

    Args:
      path: an `.xlsx` or `.xlsm` file.

    Returns:
      Every column as text, "" for an empty cell, without blank rows; int64 [rows], the number of
      each row in the sheet; and notes on what was left out.

    Raises:
      UserError: the file cannot be read, or a number has more digits than Excel keeps.
    """
    try:
        with warnings.catch_warnings():
            # Of styles and checks of input that openpyxl does not know.
            warnings.simplefilter("ignore")
            book = openpyxl.load_workbook(path, read_only=True, data_only=True)
            try:
                sheets = book.worksheets
                rows = list(_rows(path, sheets[0])) if sheets else []
            finally:
                book.close()
    except UserError:
        raise
    except (
        *(OSError, EOFError, zipfile.BadZipFile, zlib.error, InvalidFileException),
        *(ParseError, LookupError, ValueError, TypeError, RuntimeError),
    ) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read as an Excel workbook: {reason}") from error
    if not rows:
        raise UserError(f"{path}: is empty; a header line and rows are needed")
    (_, header), *body = rows
    width = max(len(cells) for _, cells in rows)
    columns = list(zip(*(cells + [""] * (width - len(cells)) for _, cells in body)))
    columns = columns or [()] * width
    named = [place for place, name in enumerate(header) if name.strip()]
    unnamed = sum(any(columns[place]) for place in set(range(width)) - set(named))
    table = pa.Table.from_arrays(
        [pa.array(columns[place], pa.string()) for place in named],
        names=[header[place] for place in named],
    )
    notes = [f"left out: columns without a name: {unnamed}"] if unnamed else []
    if len(sheets) > 1:
        others = ", ".join(sheet.title for sheet in sheets[1:])
        notes.append(f"left out: sheets other than {sheets[0].title}: {others}")
    return table, np.array([number for number, _ in body], np.int64), tuple(notes)


def _rows(path: Path, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """Yields number and cells of the rows that are not blank."""
    # Some programs write a size that is too small.
    sheet.reset_dimensions()
    for number, cells in enumerate(sheet.iter_rows(), 1):
        texts = [_text(path, number, cell) for cell in cells]
        if any(text.strip() for text in texts):
            yield number, texts


def _text(path: Path, row: int, cell: Any) -> str:
    """Returns a cell as text; raises a UserError for a number that may stand for several."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (int, float)):
        return str(value)
    if not abs(value) < _EXACT_BELOW:
        raise UserError(
            f"{path}: row {row}: column {cell.column_letter}: {value!r}; Excel keeps 15 digits of "
            "a number only; format the column as text and fill it anew"
        )
    if value != int(value):
        return repr(value)
    zeros = re.fullmatch("0+", cell.number_format or "")
    return str(int(value)).zfill(len(zeros[0]) if zeros else 0)
