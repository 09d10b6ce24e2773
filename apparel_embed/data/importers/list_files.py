"""Reading the list files of DeepFashion and its like: whole columns at once, never row by row.

Such a file begins with the number of its rows and the names of its columns; cells are separated
by white space, and padded with it. Paths may hold spaces all the same: a column of pictures ends
at the first word that ends like a picture's name, every other column is one word.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of
from apparel_embed.data.importers.imported import SOURCE_ROW
from apparel_embed.data.manifest import BOX_COLUMNS
from apparel_embed.data.text_tables import undecodable_row

_BLOCK = 1 << 24
# A sign that no list holds: every line is to be one cell.
_NO_DELIMITER = "\x1f"
_PICTURE = r"\S.*?\.(?i:jpe?g|png|gif|bmp|webp)"
_WORD = r"\S+"
_LISTED_BOX = ("x_1", "y_1", "x_2", "y_2")


@dataclasses.dataclass(frozen=True)
class ListFile:
    """The rows of a list file.

    Attributes:
      path: the file, as errors name it.
      table: the columns as strings, and `source_row`, the line counted from 1.
    """

    path: Path
    table: pa.Table

    def refuse(self, column: str, wrong: pa.ChunkedArray, allowed: str) -> None:
        """Raises a UserError for the first row where `wrong` is true."""
        index = pc.index(wrong, True).as_py()
        if index >= 0:
            row, value = self.table[SOURCE_ROW][index], self.table[column][index]
            raise UserError(
                f"{self.path}: row {row}: column {column!r}: {value.as_py()!r}; {allowed}"
            )

    def refuse_other_than(self, column: str, allowed: Sequence[str]) -> None:
        """Raises a UserError for the first row where a column has another value than these."""
        known = pc.is_in(self.table[column], value_set=pa.array(allowed))
        self.refuse(column, pc.invert(known), f"allowed: {', '.join(allowed)}")

    def split_paths(self, column: str, start: str, parts: Sequence[str], example: str) -> pa.Table:
        """Returns the parts of the paths in a column, as columns of these names.

        Args:
          column: paths relative to the dataset, with `/` between their parts.
          start: what all of them begin with, e.g. `img/`.
          parts: name of each further part, of the directories and of the picture.
          example: a path as it should be, for the error.

        Raises:
          UserError: a path has other parts, is absolute or leads upwards.
        """
        pattern = f"^{start}" + "/".join(rf"(?P<{part}>[^/\\]+)" for part in parts) + "$"
        found = pc.extract_regex(self.table[column], pattern)
        upwards = pc.match_substring_regex(self.table[column], r"(^|/)\.{1,2}(/|$)")
        self.refuse(
            column,
            pc.or_(pc.is_null(found), upwards),
            f"a path relative to the dataset like {example} is needed",
        )
        return pa.table({part: pc.struct_field(found, part) for part in parts})

    def refuse_twice(self, column: str) -> None:
        """Raises a UserError if a value of this column is in two rows."""
        codes, _ = codes_of(self.table[column])
        first_of_code = np.unique(codes, return_index=True)[1]
        if len(first_of_code) == len(codes):
            return
        first = first_of_code[codes]
        again = int(np.flatnonzero(first != np.arange(len(codes)))[0])
        rows = self.table[SOURCE_ROW]
        raise UserError(
            f"{self.path}: row {rows[again]}: column {column!r}: "
            f"{self.table[column][again].as_py()!r} was in row {rows[int(first[again])]} already"
        )


def read_list(
    path: Path,
    columns: Mapping[str, bool],
    counted: bool = True,
    recount: Callable[[pa.Table], int] | None = None,
) -> ListFile:
    """Reads a list file and checks that it is whole.

    Args:
      path: UTF-8 text, with or without a BOM, with any line ends; blank lines do not matter.
      columns: names of the columns in their order, and whether each holds pictures' paths, which
        may have spaces in them; other cells are one word.
      counted: whether the first line is the number of rows.
      recount: gives what the first line may count instead of rows, if there is such a thing.

    Returns:
      The rows, cells without the white space around them.

    Raises:
      UserError: the file cannot be read, its header is another, the number in its first line is
        not that of its rows, or a row has too few or too many columns.
    """
    lines = pc.utf8_trim_whitespace(_read_lines(path))
    head = lines.slice(0, 1 + counted).to_pylist()
    names = head[-1].split() if len(head) == 1 + counted else []
    if names != list(columns):
        raise UserError(
            f"{path}: row {1 + counted}: columns {' '.join(names) or '(none)'}; "
            f"expected: {' '.join(columns)}"
        )
    numbers = pa.array(np.arange(1, len(lines) + 1))
    kept = pc.not_equal(lines, "")
    body = pa.table({"line": lines, SOURCE_ROW: numbers}).slice(1 + counted)
    body = body.filter(kept.slice(1 + counted))
    if counted and not re.fullmatch("[0-9]{1,18}", head[0]):
        raise UserError(f"{path}: row 1: {_shown(head[0])}; the number of rows is expected")
    if not body.num_rows:
        raise UserError(f"{path}: no row follows the names of the columns; the file is cut short")
    table = _split_rows(body, columns)
    if counted and int(head[0]) != body.num_rows:
        whole = table.filter(pc.is_valid(table[next(iter(columns))]))
        if recount is None or recount(whole) != int(head[0]):
            raise UserError(
                f"{path}: row 1: says {int(head[0])} rows, but {body.num_rows} follow; "
                "the file is cut short or was changed"
            )
    _check_rows(path, body, table, columns)
    return ListFile(path, table)


def listed_boxes(listed: ListFile) -> tuple[pa.Table, int]:
    """Returns the boxes of a list: `x_1`, `y_1`, `x_2`, `y_2` as the box of a manifest.

    Args:
      listed: rows with these columns, pixels; the corners are upper left and lower right.

    Returns:
      A table of `x_min`, `y_min`, `x_max`, `y_max` as float64, all null where a box has no area,
      and the number of those.

    Raises:
      UserError: something is no finite number.
    """
    numbers = {box: _to_numbers(listed, column) for box, column in zip(BOX_COLUMNS, _LISTED_BOX)}
    x_min, y_min, x_max, y_max = numbers.values()
    fine = pc.and_(pc.greater(x_max, x_min), pc.greater(y_max, y_min))
    flat = len(fine) - pc.sum(fine, min_count=0).as_py()
    kept = {name: pc.if_else(fine, number, None) for name, number in numbers.items()}
    return pa.table(kept), flat


def boxes_of(images: pa.ChunkedArray, listed: ListFile, column: str) -> tuple[pa.Table, list[str]]:
    """Returns the box of each picture.

    Args:
      images: pictures, named as in the list.
      listed: a list of boxes.
      column: its column of pictures.

    Returns:
      A table as `listed_boxes` gives it, a row for each of `images`, null where the list has no
      box for it; and what the user should be told of it.

    Raises:
      UserError: a picture is listed twice, or something is no number.
    """
    listed.refuse_twice(column)
    boxes, flat = listed_boxes(listed)
    value_set = listed.table[column].combine_chunks()
    found = pc.index_in(images, value_set=value_set)
    notes = []
    if found.null_count:
        notes.append(f"{listed.path}: pictures that it has no box for: {found.null_count}")
    if flat:
        notes.append(f"{listed.path}: boxes without area, left out: {flat}")
    return boxes.take(found), notes


def _read_lines(path: Path) -> pa.ChunkedArray:
    """Returns the lines of a text file, blank ones too, without BOM."""
    try:
        return pyarrow.csv.read_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(column_names=["line"], block_size=_BLOCK),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=_NO_DELIMITER, quote_char=False, ignore_empty_lines=False
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={"line": pa.string()}, strings_can_be_null=False
            ),
        )["line"]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except pa.ArrowInvalid as error:
        if not path.stat().st_size:
            raise UserError(f"{path}: is empty; it was not copied or unpacked whole") from error
        row = undecodable_row(path)
        if row is not None:
            raise UserError(f"{path}: row {row}: is not UTF-8 text") from error
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if len(line) > _BLOCK:
                    raise UserError(
                        f"{path}: row {number}: {len(line):,} bytes; at most {_BLOCK:,} are allowed"
                    ) from error
        raise UserError(f"{path}: cannot be read as text: {error}") from error


def _split_rows(body: pa.Table, columns: Mapping[str, bool]) -> pa.Table:
    """Returns the cells of rows as columns; null in all of a row that has not as many."""
    cells = [
        f"(?P<{name}>{_PICTURE if is_picture else _WORD})" for name, is_picture in columns.items()
    ]
    found = pc.extract_regex(body["line"], "^" + r"\s+".join(cells) + "$")
    split = {
        name: pc.if_else(pc.is_valid(found), pc.struct_field(found, name), None) for name in columns
    }
    return pa.table({**split, SOURCE_ROW: body[SOURCE_ROW]})


def _check_rows(path: Path, body: pa.Table, table: pa.Table, columns: Mapping[str, bool]) -> None:
    """Raises a UserError for the first row that could not be split into the columns."""
    index = pc.index(pc.is_null(table[next(iter(columns))]), True).as_py()
    if index < 0:
        return
    line, row = body["line"][index].as_py(), body[SOURCE_ROW][index]
    pictures = [name for name, is_picture in columns.items() if is_picture]
    raise UserError(
        f"{path}: row {row}: {_shown(line)}: {len(line.split())} words, but {len(columns)} columns "
        f"are needed: {' '.join(columns)}, where {' and '.join(pictures)} "
        "must end in .jpg or the like"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 120 else f"{text[:117]}...")


def _to_numbers(listed: ListFile, column: str) -> pa.ChunkedArray:
    """Returns a column of a list as float64; refuses what is no finite number."""
    texts = listed.table[column]
    number = r"^[+-]?[0-9]+(\.[0-9]*)?$"
    wrong = pc.invert(pc.match_substring_regex(texts, number))
    listed.refuse(column, wrong, "a number of pixels is needed")
    return texts.cast(pa.float64())
