"""Reading and checking manifests: one row per image, from CSV or Parquet."""

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
from apparel_embed.data.columns import find_torn_item, is_blank
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
# What a row of a delta does.
CHANGE, CHANGES = "change", ("add", "remove")
# Images without labels: of a vertical, but perhaps of no known item.
UNLABELLED = "unlabelled"
SPLITS = ("train", "val", "test", UNLABELLED)
ROLES = ("query", "gallery", "both")
# Tables of results call sums and means over verticals so.
RESERVED_VERTICAL = "ALL"
# The prepared dataset numbers its records in a column of this name.
RESERVED_COLUMN = "record"
# What pyarrow takes for a number.
_NUMBER = r"(?i)^-?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)$"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row stands, for error messages.

    Attributes:
      file: the file that it is in.
      row: the row in the file, numbered as in `text_tables`; None where a file has no rows.
      unit: what the file has in place of rows.
    """

    file: str
    row: int | None
    unit: str = "row"

    def __str__(self) -> str:
        return self.file if self.row is None else f"{self.file}: {self.unit} {self.row}"

    def seen_from(self, other: Place) -> str:
        """Returns the place in words, without the file if another place is in the same."""
        is_near = self.file == other.file and self.row is not None
        return f"{self.unit} {self.row}" if is_near else str(self)


# Returns the places of some rows of a table, given by their indices.
Places = Callable[[pa.Table, Sequence[int]], "list[Place]"]


def read_manifest(path: str | os.PathLike[str]) -> pa.Table:
    """Reads a manifest and checks every value in it.

    Args:
      path: a CSV file (UTF-8, commas, a header line) or a Parquet file (`.parquet`, `.pq`).
        Columns `image`, `item_id`, `vertical`; optional `split` (train, val, test, unlabelled;
        default train), `role` (query, gallery, both; default both) and the box `x_min`, `y_min`,
        `x_max`, `y_max` (pixels of the upright image, all four or none); others are kept. In
        split unlabelled `item_id` may be empty, and `role` means nothing.

    Returns:
      A table in the file's order. All columns are strings, an empty cell is "", but for the box,
      which is float64 and null where there is none. `split`, `role` and the box are always there.

    Raises:
      UserError: the file cannot be read or a value is wrong; the message names file, row,
        column, value and what is allowed. Rows are numbered as in `text_tables`.
    """
    # A path, not a URI, whatever it looks like.
    path = Path(path)
    _check_file(str(path))
    table = read_parquet(path) if is_parquet(path) else read_csv(path)
    _check_header(path, table.column_names, REQUIRED_COLUMNS, (RESERVED_COLUMN,))
    if not table.num_rows:
        raise UserError(f"{path}: the manifest is empty; at least one row is needed")
    return check_rows(table, functools.partial(_places_in_file, path, 0))


def read_manifest_parts(location: str, reserved: Sequence[str] = ()) -> Iterator[pa.Table]:
    """Reads a manifest that may be longer than memory; only `image` and the box are looked at.

    Args:
      location: a file as in `read_manifest`, here or in a store; other columns need not be there.
      reserved: names that no column may have.

    Yields:
      Tables in the file's order, all columns as texts, "" where a cell is empty.

    Raises:
      UserError: as `read_manifest`.
    """
    _check_file(location)
    first = 0
    for number, table in enumerate(read_parts(location)):
        if not number:
            _check_header(location, table.column_names, ("image",), reserved)
        places = functools.partial(_places_in_file, location, first)
        _refuse(places, table, "image", is_blank(table["image"]), "a non-empty text is needed")
        _with_box(places, table)
        first += table.num_rows
        yield table


def read_delta(path: str | os.PathLike[str]) -> tuple[pa.Table, pa.Table]:
    """Reads what is to be added to a catalogue, or changed in it, and what removed.

    Args:
      path: a file as in `read_manifest`, with a column `change`: add or remove. A row that removes
        names an image, or with an empty `image` an item.

    Returns:
      The rows that add, as `read_manifest` returns them, and those that remove.

    Raises:
      UserError: as `read_manifest`, or an image is added by two rows that differ.
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
    _refuse(places, table, "image", nothing, "an image, or else an item_id, is to be named")
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
    """Raises a UserError if two rows of one image and box say different things of it."""
    first: dict[tuple, int] = {}
    said = [table[name].to_pylist() for name in ("item_id", "vertical")]
    for row, name in enumerate(zip(table["image"].to_pylist(), boxes_of(table))):
        other = first.setdefault(name, row)
        if any(values[row] != values[other] for values in said):
            earlier, place = places(table, [other, row])
            raise UserError(
                f"{place}: column 'image': {name[0]!r} is in {earlier.seen_from(place)}, too, with "
                "another item_id or vertical; an image is of one item"
            )


def boxes_of(table: pa.Table) -> list[Box | None]:
    """Returns the boxes of rows, in numbers or checked texts; None where there is none."""
    if BOX_COLUMNS[0] not in table.column_names:
        return [None] * table.num_rows
    sides = [_trimmed(table[name]).cast(pa.float64()).to_pylist() for name in BOX_COLUMNS]
    return [None if box[0] is None else box for box in zip(*sides)]


def check_rows(table: pa.Table, places: Places) -> pa.Table:
    """Checks every value of a manifest's rows, wherever they come from.

    Args:
      table: at least one row, columns as in a manifest. All are strings, "" where a cell is empty,
        but for the box, which may be float64, null where there is none.
      places: where rows of the table stand.

    Returns:
      The table with `split`, `role` and the box as `read_manifest` returns them.

    Raises:
      UserError: a value is wrong; the message names file, row, column, value and what is allowed.
    """
    table = _with_defaults(table)
    _check_texts(places, table)
    table = _with_box(places, table)
    _check_items(places, table)
    _refuse(
        places,
        table,
        "vertical",
        untaught_rows(table),
        f"this vertical has rows of split {UNLABELLED} but none of split train, and so no "
        "specialist to learn from",
    )
    return table


def _check_file(location: str) -> None:
    system, path = locate(location)
    kind = system.get_file_info(path).type
    if kind == fs.FileType.NotFound:
        raise UserError(f"{location}: no such manifest; tools/import_dataset.py makes one")
    if kind == fs.FileType.Directory:
        raise UserError(f"{location}: is a directory; a manifest is a CSV or Parquet file")


def _check_header(
    path: str | os.PathLike[str],
    header: Sequence[str],
    required: Sequence[str],
    reserved: Sequence[str],
) -> None:
    """Raises a UserError if a column is missing, there twice, or has a reserved name."""
    for name in header:
        if list(header).count(name) > 1:
            raise UserError(f"{path}: column {name!r} is there twice; names must differ")
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


def _with_defaults(table: pa.Table) -> pa.Table:
    """Returns the table with `split` and `role`, empty cells filled."""
    for name, default in (("split", "train"), ("role", "both")):
        if name in table.column_names:
            column = table[name]
            filled = pc.if_else(pc.equal(column, ""), default, column)
            table = table.set_column(table.column_names.index(name), name, filled)
        else:
            table = table.append_column(name, pa.repeat(pa.scalar(default), table.num_rows))
    return table


def _check_texts(places: Places, table: pa.Table) -> None:
    """Raises a UserError for an unknown split or role, or a required cell empty or reserved."""
    # Splits first: of a misspelt one that an item_id is missing would be the lesser half.
    for name, allowed in (("split", SPLITS), ("role", ROLES)):
        unknown = pc.invert(pc.is_in(table[name], value_set=pa.array(allowed)))
        _refuse(places, table, name, unknown, f"expected one of {', '.join(allowed)}")
    for name in REQUIRED_COLUMNS:
        blank, needed = is_blank(table[name]), "a non-empty text is needed"
        if name == "item_id":
            blank = pc.and_not(blank, pc.equal(table["split"], UNLABELLED))
            needed += f"; only split {UNLABELLED} may go without"
        _refuse(places, table, name, blank, needed)
    reserved = pc.equal(table["vertical"], RESERVED_VERTICAL)
    _refuse(places, table, "vertical", reserved, "this name is that of all verticals; rename it")


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
        _refuse(places, table, name, partial, "a box needs all four numbers, or none")
        numbers[name] = _to_numbers(places, table, name, cell)
    for low, high in (("x_min", "x_max"), ("y_min", "y_max")):
        flat = pc.fill_null(pc.less_equal(numbers[high], numbers[low]), False)
        _refuse(places, table, high, flat, f"it must be greater than {low}")
    for name, column in numbers.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _trimmed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns texts without white space around them, null where nothing is left; numbers as is."""
    if not pa.types.is_string(cells.type):
        return cells
    texts = pc.utf8_trim_whitespace(cells)
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _to_numbers(
    places: Places, table: pa.Table, name: str, text: pa.ChunkedArray
) -> pa.ChunkedArray:
    """Returns texts or numbers as float64, nulls kept; refuses what is no finite number."""
    try:
        numbers = text.cast(pa.float64())
    except pa.ArrowInvalid:
        wrong = pc.invert(pc.match_substring_regex(text, _NUMBER))
        _refuse(places, table, name, wrong, "a number of pixels is needed")
        raise
    infinite = pc.invert(pc.fill_null(pc.is_finite(numbers), True))
    _refuse(places, table, name, infinite, "a finite number of pixels is needed")
    return numbers


def _check_items(places: Places, table: pa.Table) -> None:
    """Raises a UserError if an item is in two verticals or in two splits."""
    reasons = {
        "vertical": "an item belongs to one vertical",
        "split": "all images of an item must be in one split",
    }
    torn = find_torn_item(table, list(reasons))
    if torn is not None:
        name, row, other_row = torn
        first, place = places(table, [row, other_row])
        one, other = (table[name][index].as_py() for index in (row, other_row))
        raise UserError(
            f"{place}: column {name!r}: {other!r}, but item_id {table['item_id'][row].as_py()!r} "
            f"has {one!r} in {first.seen_from(place)}; {reasons[name]}"
        )


def untaught_rows(table: pa.Table) -> pa.ChunkedArray:
    """Returns of rows whether they are unlabelled and their vertical has none of split train.

    The vertical's specialist says what such an image is to look like to the student.
    """
    trained = table["vertical"].filter(pc.equal(table["split"], "train")).unique()
    return pc.and_not(
        pc.equal(table["split"], UNLABELLED), pc.is_in(table["vertical"], value_set=trained)
    )


def _refuse(
    places: Places, table: pa.Table, column: str, wrong: pa.ChunkedArray | pa.Array, allowed: str
) -> None:
    """Raises a UserError for the first row where `wrong` is true."""
    index = pc.index(wrong, True).as_py()
    if index >= 0:
        (place,) = places(table, [index])
        value = table[column][index].as_py()
        raise UserError(f"{place}: column {column!r}: {value!r}; {allowed}")


def _places_in_file(
    path: str | os.PathLike[str], first: int, _: pa.Table, indices: Sequence[int]
) -> list[Place]:
    """Returns the places of rows of a table that was read from a file, from row `first` on."""
    return [Place(str(path), row) for row in rows_in_file(path, [first + i for i in indices])]
