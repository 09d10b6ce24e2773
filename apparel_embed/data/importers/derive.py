"""Saying what the columns of a dataset mean: patterns, other names, and templates."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.data.importers.imported import (
    ERROR,
    SOURCE_FILE,
    SOURCE_ROW,
    refuse_numbers,
    wrong_value,
)
from apparel_embed.data.manifest import BOX_COLUMNS, Places


@dataclasses.dataclass(frozen=True)
class DeriveOptions:
    """What columns are made of.

    Attributes:
      pattern: a regular expression (RE2) searched in a column; every named group becomes a column,
        in place of one of that name. None for no pattern.
      pattern_column: the column to search in; None for the images' paths.
      unmatched: what becomes of rows without a match: "error", or "skip" to leave them out.
      columns: for a column's name what it is made of: another column, which gets this name, a
        template such as "{style}-{colour}", or "" to leave the column out.
      image_separator: what separates several images in a cell, each of which becomes a row; None
        where a cell holds one.
    """

    pattern: str | None = None
    pattern_column: str | None = None
    unmatched: str = ERROR
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_separator: str | None = None


_Derived = tuple[pa.Table, tuple[str, ...]]


def derive(table: pa.Table, options: DeriveOptions, places: Places) -> _Derived:
    """Returns the table with the columns that were asked for, and notes on what was left out.

    Args:
      table: rows of a dataset, with their sources.
      options: what columns are made of.
      places: tells where rows stand.

    Raises:
      UserError: the pattern is wrong or a row does not match, a column does not exist, or a row
        of several images has a box.
    """
    notes: tuple[str, ...] = ()
    # The column that holds the images' paths or is to hold them.
    images = options.columns.get("image", "image")
    images = images if images in table.column_names else "image"
    if options.image_separator is not None:
        table, notes = _with_single_images(table, options, images, places)
    if options.pattern is not None:
        table, more = _with_groups(table, options, images, places)
        notes += more
    return _with_columns(table, options.columns), notes


def _with_single_images(
    table: pa.Table, options: DeriveOptions, name: str, places: Places
) -> _Derived:
    """Returns the table with a row for each image in a cell, in the cell's order."""
    separator = options.image_separator
    flag = f"--image_separator={separator}"
    if not separator:
        raise UserError(f"{flag} is not allowed; name what separates images, such as |")
    cells = _texts_of(table, name, flag)
    lists = pc.split_pattern(cells.combine_chunks(), separator)
    images = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    rows = pc.list_parent_indices(lists).to_numpy()
    filled = pc.not_equal(images, "").to_numpy(zero_copy_only=False)
    counts = np.bincount(rows[filled], minlength=table.num_rows)
    # A cell with nothing in it stays a row, for others to complain of.
    kept = filled | ((counts[rows] == 0) & (np.diff(rows, prepend=-1) > 0))
    for edge in (options.columns.get(edge, edge) for edge in BOX_COLUMNS):
        if edge in table.column_names:
            column = pc.fill_null(table[edge].cast(pa.string()), "")
            boxed = pc.not_equal(pc.utf8_trim_whitespace(column), "").to_numpy()
            for row in np.flatnonzero((counts > 1) & boxed)[:1]:
                reason = f"a box is of one image, but column {name!r} has {counts[row]}"
                raise wrong_value(places(table, [row])[0], edge, column[int(row)].as_py(), reason)
    several = int((counts > 1).sum())
    table = _put(table.take(pa.array(rows[kept])), name, images.filter(pa.array(kept)))
    return table, ((f"rows with several images, now one each: {several:,}",) if several else ())


def _with_groups(table: pa.Table, options: DeriveOptions, images: str, places: Places) -> _Derived:
    """Returns the rows that match the pattern, with a column for each of its groups."""
    pattern = options.pattern or ""
    names = _group_names(pattern)
    searched = options.pattern_column or images
    by_default = "--pattern (--pattern_column names another)"
    texts = _texts_of(table, searched, "--pattern_column" if options.pattern_column else by_default)
    matches = pc.extract_regex(texts, pattern).combine_chunks()
    missed = matches.null_count
    notes: tuple[str, ...] = ()
    if missed:
        index = pc.index(matches.is_null(), True).as_py()
        example = texts[index].as_py()
        if options.unmatched == ERROR or missed == table.num_rows:
            raise UserError(
                f"{places(table, [index])[0]}: column {searched!r}: {example!r} does not match "
                f"--pattern={pattern} ({missed} of {table.num_rows} rows do not)"
                + ("" if missed == table.num_rows else "; --unmatched=skip leaves them out")
            )
        notes = (f"left out: rows that do not match --pattern: {missed:,} (e.g. {example})",)
        table, matches = table.filter(matches.is_valid()), matches.drop_null()
    for name in names:
        table = _put(table, name, matches.field(name))
    return table, notes


def _group_names(pattern: str) -> list[str]:
    """Returns the names of a pattern's groups; raises a UserError if it is wrong."""
    flag = f"--pattern={pattern}"
    try:
        found = pc.extract_regex(pa.array([], pa.string()), pattern).type
    except pa.ArrowInvalid as error:
        reason = one_line(error)
        if "unnamed groups" in reason:
            reason = "every group needs a name, (?P<name>...), or is written as (?:...)"
        raise UserError(f"{flag} is not allowed: {reason}") from error
    names = [found.field(number).name for number in range(found.num_fields)]
    if not names:
        raise UserError(f"{flag} has no group; write (?P<item_id>...) for a column")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{flag} has two groups {name!r}; names must differ")
    _refuse_reserved(names, flag)
    return names


def _with_columns(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """Returns the table with the columns renamed, made by templates, or left out."""
    _refuse_reserved(columns, "--columns")
    made: dict[str, pa.ChunkedArray] = {}
    renamed: set[str] = set()
    for name, source in columns.items():
        flag = f"--columns={name}:{source}"
        if "{" in source:
            made[name] = _fill_template(table, source, flag)
        elif source:
            find = _column_of if name in BOX_COLUMNS else _texts_of
            made[name] = find(table, source, flag)
            renamed.add(source)
        else:
            _column_of(table, name, flag)
            renamed.add(name)
    table = table.drop_columns(sorted(renamed))
    for name, values in made.items():
        table = _put(table, name, values)
    return table


def _fill_template(table: pa.Table, template: str, flag: str) -> pa.ChunkedArray:
    """Returns the template's texts, "" where one of its columns is empty.

    With only some of its columns filled, different things would get the same name.
    """
    parts: list[pa.ChunkedArray | pa.Scalar] = []
    empty = pa.chunked_array([pa.repeat(pa.scalar(False), table.num_rows)])
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{flag} is not allowed: {error}") from error
    for text, field, form, conversion in pieces:
        parts.append(pa.scalar(text))
        if field is None:
            continue
        if form or conversion:
            raise UserError(f"{flag} is not allowed: in braces only a column's name is")
        parts.append(_texts_of(table, field, flag))
        empty = pc.or_(empty, pc.equal(parts[-1], ""))
    return pc.if_else(empty, "", pc.binary_join_element_wise(*parts, ""))


def _put(table: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Returns the table with a column, in place of one of that name."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _column_of(table: pa.Table, name: str, flag: str) -> pa.ChunkedArray:
    """Returns a column; raises a UserError if there is none."""
    names = [column for column in table.column_names if column not in (SOURCE_FILE, SOURCE_ROW)]
    if name not in names:
        raise UserError(f"{flag}: no column {name!r}; there are {', '.join(names)}")
    return table[name]


def _texts_of(table: pa.Table, name: str, flag: str) -> pa.ChunkedArray:
    """Returns a column of texts; raises a UserError if there is none, or one of numbers."""
    column = _column_of(table, name, flag)
    refuse_numbers(table, name, flag)
    return column


def _refuse_reserved(names: Iterable[str], flag: str) -> None:
    for name in names:
        if name in (SOURCE_FILE, SOURCE_ROW) or not name:
            raise UserError(f"{flag}: column {name!r} has a reserved name; choose another")
