"""Reads and checks manifests: CSV or Parquet files with one row per image."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import locate
from apparel_embed.data.columns import find_inconsistent_item, is_blank
from apparel_embed.data.images import Box
from apparel_embed.data.text_tables import (
    is_parquet,
    read_csv,
    read_parquet,
    read_parts,
    rows_in_file,
)

REQUIRED_COLUMNS = ("image", "item_id", "vertical")
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
# The column of a delta that says what a row does, and its values.
CHANGE, CHANGES = "change", ("add", "remove")
# Images whose vertical is known, but not necessarily their item.
UNLABELLED = "unlabelled"
SPLITS = ("train", "val", "test", UNLABELLED)
ROLES = ("query", "gallery", "both")
# The row of totals or means over verticals in result tables.
RESERVED_VERTICAL = "ALL"
# The prepared dataset's column of record numbers.
RESERVED_COLUMN = "record"
# The numbers that pyarrow parses.
_NUMBER = r"(?i)^-?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$"


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of a row, for error messages.

    Attributes:
      file: the file that contains it.
      row: its number in the file, see `text_tables`; None for files without rows.
      unit: what the file calls a row.
    """

    file: str
    row: int | None
    unit: str = "row"

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}: {self.unit} {self.row}"

    def seen_from(self, other: Place) -> str:
        """Returns the place in words, without the file if `other` is in the same file."""
        is_near = self.file == other.file and self.row is not None
        return f"{self.unit} {self.row}" if is_near else str(self)


# Returns the places of the rows of a table at the given indices.
Places = Callable[[pa.Table, Sequence[int]], "list[Place]"]


def read_manifest(path: str | os.PathLike[str]) -> pa.Table:
    """Reads a manifest and checks every value in it.

    Args:
      path: a CSV file (UTF-8, commas, a header line) or a Parquet file (`.parquet`, `.pq`).
        Columns `image`, `item_id`, `vertical`; optional `split` (train, val, test, unlabelled;
        default train), `role` (query, gallery, both; default both) and the box `x_min`, `y_min`,
        `x_max`, `y_max` (pixels of the upright image, all four or none); others are kept. In
        split unlabelled `item_id` may be empty, and `role` is ignored.

    Returns:
      A table in the file's order. All columns are strings, "" for empty cells, except the box,
      which is float64, null if missing. `split`, `role` and the box are always present.

    Raises:
      UserError: the file cannot be read or a value is wrong; the error names the file, row,
        column, value and what is expected. Rows are numbered as in `text_tables`.
    """
    # Always a path, even if it looks like a URI.
    path = Path(path)
    _check_file(str(path))
    table = read_parquet(path) if is_parquet(path) else read_csv(path)
    _check_header(path, table.column_names, REQUIRED_COLUMNS, (RESERVED_COLUMN,))
    if not table.num_rows:
        raise UserError(f"{path}: the manifest is empty; expected at least one row")
    return check_rows(table, functools.partial(_places_in_file, path, 0))


def read_manifest_parts(location: str, reserved: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Reads a manifest that may not fit in memory; checks only `image` and the box.

    Args:
      location: a file as in `read_manifest`, local or remote; only `image` is required.
      reserved: names that no column may have.

    Yields:
      Tables in the file's order, all columns as text, "" for empty cells.

    Raises:
      UserError: see `read_manifest`.
    """
    _check_file(location)
    first = 0
    for number, table in enumerate(read_parts(location)):
        if not number:
            _check_header(location, table.column_names, ("image",), reserved)
        places = functools.partial(_places_in_file, location, first)
        _refuse(places, table, "image", is_blank(table["image"]), "expected non-empty text")
        _with_box(places, table)
        first += table.num_rows
        yield table


def read_delta(path: str | os.PathLike[str]) -> tuple[pa.Table, pa.Table]:
    """Reads the rows to add to a catalogue, or change in it, and the rows to remove.

    Args:
      path: a file as in `read_manifest`, with a column `change`: add or remove. A row to remove
        names an image or, if `image` is empty, an item.

    Returns:
      The rows to add, as `read_manifest` returns them, and the rows to remove.

    Raises:
      UserError: see `read_manifest`, or two rows that add an image differ.
    """
    path = Path(path)
    _check_file(str(path))
    table = read_parquet(path) if is_parquet(path) else read_csv(path)
    _check_header(path, table.column_names, (*REQUIRED_COLUMNS, CHANGE), (RESERVED_COLUMN,))
    places = functools.partial(_places_in_file, path, 0)
    unknown = pc.invert(pc.is_in(table[CHANGE], value_set=pa.array(CHANGES)))
    _refuse(places, table, CHANGE, unknown, f"expected one of {', '.join(CHANGES)}")
    is_added = pc.equal(table[CHANGE], CHANGES[0])
    unnamed = pc.and_(is_blank(table["image"]), is_blank(table["item_id"]))
    nothing = pc.and_not(unnamed, is_added)
    _refuse(places, table, "image", nothing, "expected an image or an item_id to remove")
    table = _with_box(places, table)
    rows = pc.indices_nonzero(is_added).to_pylist()

    def places_of_added(_: pa.Table, indices: Sequence[int]) -> list[Place]:
        return places(table, [rows[index] for index in indices])

    added = table.filter(is_added)
    if rows:
        added = check_rows(added, places_of_added)
        _check_named_once(added, places_of_added)
    return added, table.filter(pc.invert(is_added))


def _check_named_once(table: pa.Table, places: Places) -> None:
    """Raises a UserError if rows with the same image and box differ in item or vertical."""
    first: dict[tuple, int] = {}
    labels = [table[name].to_pylist() for name in ("item_id", "vertical")]
    for row, name in enumerate(zip(table["image"].to_pylist(), boxes_of(table))):
        other = first.setdefault(name, row)
        if any(values[row] != values[other] for values in labels):
            earlier, place = places(table, [other, row])
            raise UserError(
                f"{place}: column 'image': {name[0]!r} has another item_id or vertical in "
                f"{earlier.seen_from(place)}; an image belongs to one item"
            )


def boxes_of(table: pa.Table) -> list[Box | None]:
    """Returns the boxes of rows, from numbers or checked texts; None for rows without a box."""
    if BOX_COLUMNS[0] not in table.column_names:
        return [None] * table.num_rows
    sides = [_trimmed(table[name]).cast(pa.float64()).to_pylist() for name in BOX_COLUMNS]
    return [None if box[0] is None else box for box in zip(*sides)]


def check_rows(table: pa.Table, places: Places) -> pa.Table:
    """Checks every value of a manifest's rows, from any source.

    Args:
      table: at least one row, columns as in a manifest. All are strings, "" for empty cells,
        except the box, which may be float64, null if missing.
      places: returns the places of rows for error messages.

    Returns:
      The table with `split`, `role` and the box as `read_manifest` returns them.

    Raises:
      UserError: a value is wrong; the error names file, row, column, value and what is expected.
    """
    table = _normalised(table)
    _check_texts(places, table)
    table = _with_box(places, table)
    _check_items(places, table)
    _refuse(
        places,
        table,
        "vertical",
        rows_without_teacher(table),
        f"this vertical has {UNLABELLED} rows but no train rows, so there is no specialist to "
        "learn from",
    )
    return table


def _check_file(location: str) -> None:
    system, path = locate(location)
    kind = system.get_file_info(path).type
    if kind == fs.FileType.NotFound:
        raise UserError(f"{location}: no such manifest; create one with tools/import_dataset.py")
    if kind == fs.FileType.Directory:
        raise UserError(f"{location}: is a directory; expected a CSV or Parquet file")


def _check_header(
    path: str | os.PathLike[str],
    header: Sequence[str],
    required: Sequence[str],
    reserved: Sequence[str],
) -> None:
    """Raises a UserError if a column is missing, repeated, or has a reserved name."""
    for name in header:
        if list(header).count(name) > 1:
            raise UserError(f"{path}: column {name!r} appears twice; rename one")
        if name in reserved:
            raise UserError(f"{path}: column {name!r} has a reserved name; rename it")
    found = f"found: {', '.join(header)}"
    for name in required:
        if name not in header:
            raise UserError(
                f"{path}: no column {name!r}; {found}; expected names separated by commas"
            )
    box = [name for name in BOX_COLUMNS if name in header]
    if box and len(box) < len(BOX_COLUMNS):
        missing = ", ".join(name for name in BOX_COLUMNS if name not in header)
        raise UserError(
            f"{path}: column {box[0]!r} without {missing}; a box needs all of "
            f"{', '.join(BOX_COLUMNS)}; {found}"
        )


def _normalised(table: pa.Table) -> pa.Table:
    """Returns the table with `split` and `role`, defaults in their empty cells, and trimmed names.

    Spaces around a name are never part of it, as spreadsheets leave some behind.
    """
    for name in ("item_id", "vertical"):
        column = pc.utf8_trim_whitespace(table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    for name, default in (("split", "train"), ("role", "both")):
        if name in table.column_names:
            column = table[name]
            filled = pc.if_else(pc.equal(column, ""), default, column)
            table = table.set_column(table.column_names.index(name), name, filled)
        else:
            table = table.append_column(name, pa.repeat(pa.scalar(default), table.num_rows))
    return table


def _check_texts(places: Places, table: pa.Table) -> None:
    """Raises a UserError for an unknown split or role, or an empty or reserved required cell."""
    # Splits first: a misspelt "unlabelled" would otherwise be reported as a missing item_id.
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        unknown = pc.invert(pc.is_in(table[name], value_set=pa.array(allowed)))
        _refuse(places, table, name, unknown, f"expected one of {', '.join(allowed)}")
    for name in REQUIRED_COLUMNS:
        blank, expected = is_blank(table[name]), "expected non-empty text"
        if name == "item_id":
            blank = pc.and_not(blank, pc.equal(table["split"], UNLABELLED))
            expected += f"; only rows of split {UNLABELLED} may lack it"
        _refuse(places, table, name, blank, expected)
    reserved = pc.equal(table["vertical"], RESERVED_VERTICAL)
    _refuse(places, table, "vertical", reserved, "reserved for all verticals; rename it")


def _with_box(places: Places, table: pa.Table) -> pa.Table:
    """Returns the table with the box as checked float64 columns."""
    if BOX_COLUMNS[0] not in table.column_names:
        for name in BOX_COLUMNS:
            table = table.append_column(name, pa.nulls(table.num_rows, pa.float64()))
        return table
    cells = {name: _trimmed(table[name]) for name in BOX_COLUMNS}
    blank = {name: cell.is_null() for name, cell in cells.items()}
    none = pc.and_(pc.and_(blank["x_min"], blank["y_min"]), pc.and_(blank["x_max"], blank["y_max"]))
    numbers = {}
    for name, cell in cells.items():
        partial = pc.and_not(blank[name], none)
        _refuse(places, table, name, partial, "a box needs all four numbers or none")
        numbers[name] = _to_numbers(places, table, name, cell)
    for low, high in (("x_min", "x_max"), ("y_min", "y_max")):
        flat = pc.fill_null(pc.less_equal(numbers[high], numbers[low]), False)
        _refuse(places, table, high, flat, f"it must be greater than {low}")
    for name, column in numbers.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _trimmed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns texts without surrounding white space, null if nothing is left; numbers as is."""
    if not pa.types.is_string(cells.type):
        return cells
    texts = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _to_numbers(
    places: Places, table: pa.Table, name: str, text: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Returns texts or numbers as float64, nulls kept; raises a UserError if one is not finite."""
    try:
        numbers = text.cast(pa.float64())
    except pa.ArrowInvalid:
        wrong = pc.invert(pc.match_substring_regex(text, _NUMBER))
        _refuse(places, table, name, wrong, "expected a number of pixels")
        raise
    infinite = pc.invert(pc.fill_null(pc.is_finite(numbers), True))
    _refuse(places, table, name, infinite, "expected a finite number of pixels")
    return numbers


def _check_items(places: Places, table: pa.Table) -> None:
    """Raises a UserError if an item is in two verticals or two splits."""
    reasons = {
        "vertical": "an item belongs to one vertical",
        "split": "all images of an item must be in one split",
    }
    inconsistent = find_inconsistent_item(table, list(reasons))
    if inconsistent is not None:
        name, row, other_row = inconsistent
        first, place = places(table, [row, other_row])
        one, other = (table[name][index].as_py() for index in (row, other_row))
        raise UserError(
            f"{place}: column {name!r}: {other!r}, but item_id {table['item_id'][row].as_py()!r} "
            f"has {one!r} in {first.seen_from(place)}; {reasons[name]}"
        )


def rows_without_teacher(table: pa.Table) -> pa.ChunkedArray:
    """Returns whether each row is unlabelled in a vertical without train rows.

    The student's target for such an image comes from the vertical's specialist.
    """
    trained = table["vertical"].filter(pc.equal(table["split"], "train")).unique()
    return pc.and_not(
        pc.equal(table["split"], UNLABELLED), pc.is_in(table["vertical"], value_set=trained)
    )


def _refuse(
    places: Places, table: pa.Table, column: str, wrong: pa.ChunkedArray | pa.Array, expected: str
) -> None:
    """Raises a UserError for the first row where `wrong` is true."""
    index = pc.index(wrong, True).as_py()
    if index >= 0:
        (place,) = places(table, [index])
        value = table[column][index].as_py()
        raise UserError(f"{place}: column {column!r}: {value!r}; {expected}")


def _places_in_file(
    path: str | os.PathLike[str], first: int, _: pa.Table, indices: Sequence[int]
) -> list[Place]:
    """Returns the places of rows of a table read from a file, starting at row `first`."""
    return [Place(str(path), row) for row in rows_in_file(path, [first + i for i in indices])]
