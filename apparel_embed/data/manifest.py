"""Reading and checking manifests: one row per picture, from CSV or Parquet."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of, find_torn, ranked_codes_of
from apparel_embed.data.text_tables import is_parquet, read_csv, read_parquet, rows_in_file

REQUIRED_COLUMNS = ("image", "item_id", "vertical")
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max")
# Pictures without labels: of a vertical, but perhaps of no known item.
UNLABELLED = "unlabelled"
SPLITS = ("train", "val", "test", UNLABELLED)
ROLES = ("query", "gallery", "both")
# Tables of results call sums and means over verticals so.
RESERVED_VERTICAL = "ALL"
# The prepared dataset numbers its records in a column of this name.
RESERVED_COLUMN = "record"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a row stands, for error messages.

    Attributes:
      file: the file that it is in.
      row: the row in the file as people count it; None where a file has no rows.
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
        `x_max`, `y_max` (pixels of the upright picture, all four or none); others are kept. In
        split unlabelled `item_id` may be empty, and `role` means nothing.

    Returns:
      A table in the file's order. All columns are strings, an empty cell is "", but for the box,
      which is float64 and null where there is none. `split`, `role` and the box are always there.

    Raises:
      UserError: the file cannot be read or a value is wrong; the message names file, row,
        column, value and what is allowed. Row N is line N of a CSV file (the header is line 1),
        or the N-th row of a Parquet file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such manifest; tools/import_dataset.py makes one")
    if path.is_dir():
        raise UserError(f"{path}: is a directory; a manifest is a CSV or Parquet file")
    table = read_parquet(path) if is_parquet(path) else read_csv(path)
    _check_header(path, table.column_names)
    if not table.num_rows:
        raise UserError(f"{path}: the manifest is empty; at least one row is needed")
    return check_rows(table, functools.partial(_places_in_file, path))


def check_rows(table: pa.Table, places: Places) -> pa.Table:
    """Checks every value of a manifest's rows, wherever they come from.

    Args:
      table: at least one row, columns as in a manifest. All are strings, "" where a cell is empty,
        but for the box, which may be float64, null where there is none.
      places: tells where rows of the table stand.

    Returns:
      The table with `split`, `role` and the box as `read_manifest` returns them.

    Raises:
      UserError: a value is wrong; the message names file, row, column, value and what is allowed.
    """
    table = _with_defaults(table)
    _check_texts(places, table)
    table = _with_box(places, table)
    _check_items(places, table)
    _check_unlabelled(places, table)
    return table


def hold_out(
    table: pa.Table, fraction: float, by: str = "item_id", seed: int = 0, into: str = "val"
) -> pa.Table:
    """Moves a part of the training groups to the validation split, or to the test split.

    In each vertical the given fraction of the groups moves, rounded, but at least one and never
    all of them: a vertical with a single group keeps it in `train`. Rows of split unlabelled whose
    group is held out are left out: they have no item to evaluate with, and a student that learnt
    from them would be judged by garments it has seen.

    Args:
      table: a manifest as `read_manifest` returns it, without rows of split `into`; its rows may be
        numbered in a column `RESERVED_COLUMN`.
      fraction: share of the groups of `train` to move, in (0, 1).
      by: the column whose distinct values are the groups, e.g. `item_id`.
      seed: another seed gives another choice; the order of the rows has no influence.
      into: the split to move to, `val` or `test`.

    Returns:
      The table with some `train` replaced by `into`, without the unlabelled rows of their groups.
      The other rows keep their order.

    Raises:
      UserError: `fraction` is out of range, the split has rows already, the column is missing
        or empty in a training row, it would put one item into both splits, or it would leave a
        vertical with unlabelled rows none of split train (groups may span verticals).
    """
    if not 0 < fraction < 1:
        raise UserError(f"{into} fraction {fraction} is not allowed; it must lie between 0 and 1")
    names = [name for name in table.column_names if name != RESERVED_COLUMN]
    if by not in names:
        raise UserError(f"no column {by!r}; there are {', '.join(names)}")
    if pc.any(pc.equal(table["split"], into)).as_py():
        raise UserError(f"the manifest has {into} rows already; hold out nothing or remove them")
    # Not whole rows: of many the paths alone are large.
    columns = table.select(sorted({"item_id", "vertical", by}))
    train = columns.filter(pc.equal(table["split"], "train"))
    groups = train[by].cast(pa.string())
    ungrouped = pc.index(_is_blank(pc.fill_null(groups, "")), True).as_py()
    if ungrouped >= 0:
        index = pc.indices_nonzero(pc.equal(table["split"], "train"))[ungrouped].as_py()
        raise UserError(
            f"column {by!r} is empty in some training rows, e.g. that of image "
            f"{table['image'][index].as_py()!r}; each needs a group"
        )
    pairs = pa.table({"item_id": train["item_id"], "vertical": train["vertical"], "group": groups})
    _check_groups_keep_items(pairs, by)
    moved = _chosen_groups(pairs, fraction, seed)
    # An empty cell is no group, and so in none of them.
    held = pc.is_in(table[by].cast(pa.string()), value_set=moved)
    split = pc.if_else(pc.and_(pc.equal(table["split"], "train"), held), into, table["split"])
    table = table.set_column(table.column_names.index("split"), "split", split)
    left_out = pc.and_(pc.equal(split, UNLABELLED), held)
    if pc.any(left_out).as_py():
        table = table.filter(pc.invert(left_out))
    untaught = table.filter(_is_untaught(table))
    if untaught.num_rows:
        raise UserError(
            f"vertical {untaught['vertical'][0].as_py()!r} has rows of split {UNLABELLED}, but to "
            f"hold out by {by!r} leaves it none of split train, and so no specialist to learn "
            "from; hold out by another column or with another seed"
        )
    return table


def _check_groups_keep_items(pairs: pa.Table, by: str) -> None:
    """Raises a UserError if an item has rows in two groups."""
    if by == "item_id":
        return
    items, ids = codes_of(pairs["item_id"])
    torn = find_torn(items, codes_of(pairs["group"])[0])
    if torn.size:
        item = pc.min(ids.take(pa.array(items[torn]))).as_py()
        values = pairs.filter(pc.equal(pairs["item_id"], item))["group"].unique().to_pylist()
        raise UserError(
            f"item_id {item!r} has {by} {values[0]!r} and {values[1]!r}; to hold out by {by}, "
            "all pictures of an item must have the same"
        )


def _chosen_groups(pairs: pa.Table, fraction: float, seed: int) -> pa.Array:
    """Returns the groups to hold out, drawn vertical by vertical."""
    # A group may span verticals (a shop, a day); it is drawn with the first of them by name.
    groups, names = ranked_codes_of(pairs["group"])
    verticals, _ = ranked_codes_of(pairs["vertical"])
    home = np.full(len(names), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(home, groups, verticals)
    random = np.random.default_rng(seed)
    chosen = [np.empty(0, np.int64)]
    for vertical in np.unique(home):
        here = np.flatnonzero(home == vertical)
        count = min(max(1, round(fraction * len(here))), len(here) - 1)
        chosen.append(random.permutation(here)[:count])
    return names.take(pa.array(np.concatenate(chosen)))


def _check_header(path: Path, header: Sequence[str]) -> None:
    """Raises a UserError if a column is missing, there twice, or has a reserved name."""
    for name in header:
        if list(header).count(name) > 1:
            raise UserError(f"{path}: column {name!r} is there twice; names must differ")
    found = f"found: {', '.join(header)}"
    for name in REQUIRED_COLUMNS:
        if name not in header:
            raise UserError(f"{path}: no column {name!r}; {found} (separated by commas)")
    if RESERVED_COLUMN in header:
        raise UserError(f"{path}: column {RESERVED_COLUMN!r} has a reserved name; rename it")
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
        _refuse(places, table, name, unknown, f"allowed: {', '.join(allowed)}")
    for name in REQUIRED_COLUMNS:
        blank, needed = _is_blank(table[name]), "a non-empty text is needed"
        if name == "item_id":
            blank = pc.and_not(blank, pc.equal(table["split"], UNLABELLED))
            needed += f"; only split {UNLABELLED} may go without"
        _refuse(places, table, name, blank, needed)
    reserved = pc.equal(table["vertical"], RESERVED_VERTICAL)
    _refuse(places, table, "vertical", reserved, "this name is that of all verticals; rename it")


def _is_blank(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Returns of texts whether there is nothing in them but white space."""
    return pc.equal(pc.utf8_trim_whitespace(texts), "")


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
        wrong = pa.array(np.arange(len(text)) == _first_no_number(text))
        _refuse(places, table, name, wrong, "a number of pixels is needed")
        raise
    infinite = pc.invert(pc.fill_null(pc.is_finite(numbers), True))
    _refuse(places, table, name, infinite, "a finite number of pixels is needed")
    return numbers


def _first_no_number(text: pa.ChunkedArray) -> int:
    """Returns where the first text stands that is no number, of texts of which one is none."""
    # By halves: to look at each of millions would take minutes.
    start, count = 0, len(text)
    while count > 1:
        half = count // 2
        if _are_numbers(text.slice(start, half)):
            start, count = start + half, count - half
        else:
            count = half
    return start


def _are_numbers(text: pa.ChunkedArray) -> bool:
    try:
        text.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _check_items(places: Places, table: pa.Table) -> None:
    """Raises a UserError if an item is in two verticals or in two splits."""
    items, ids = codes_of(table["item_id"])
    known = np.flatnonzero(~_is_blank(ids).to_numpy(zero_copy_only=False)[items])
    for name, reason in (
        ("vertical", "an item belongs to one vertical"),
        ("split", "all pictures of an item must be in one split"),
    ):
        values, names = codes_of(table[name])
        torn = known[find_torn(items[known], values[known])]
        if not torn.size:
            continue
        # The item that begins first in the table, and the first of its rows that does not fit.
        row = np.flatnonzero(np.isin(items, items[torn]))[0]
        other_row = torn[items[torn] == items[row]][0]
        first, place = places(table, [row, other_row])
        one, other = (names[values[index]].as_py() for index in (row, other_row))
        raise UserError(
            f"{place}: column {name!r}: {other!r}, but item_id {ids[items[row]].as_py()!r} has "
            f"{one!r} in {first.seen_from(place)}; {reason}"
        )


def _check_unlabelled(places: Places, table: pa.Table) -> None:
    """Raises a UserError if a vertical with unlabelled rows has none to train a specialist on."""
    _refuse(
        places,
        table,
        "vertical",
        _is_untaught(table),
        f"this vertical has rows of split {UNLABELLED} but none of split train, and so no "
        "specialist to learn from",
    )


def _is_untaught(table: pa.Table) -> pa.ChunkedArray:
    """Returns of rows whether they are unlabelled and their vertical has none of split train.

    The vertical's specialist says what such a picture is to look like to the student.
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


def _places_in_file(path: Path, _: pa.Table, indices: Sequence[int]) -> list[Place]:
    """Returns the places of a manifest's rows; the table is what was read from it."""
    return [Place(str(path), row) for row in rows_in_file(path, indices)]
