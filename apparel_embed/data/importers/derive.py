"""Saying what the columns of a dataset mean: patterns, other names, and templates."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.importers.imported import SOURCE_FILE, SOURCE_ROW, refuse_numbers
from apparel_embed.data.manifest import BOX_COLUMNS, Places

ERROR, SKIP = "error", "skip"


@dataclasses.dataclass(frozen=True)
class DeriveOptions:
    """What columns are made of.

    Attributes:
      pattern: a regular expression (RE2) searched in a column; every named group becomes a column,
        in place of one of that name. None for no pattern.
      pattern_column: the column to search in; None for the pictures' paths.
      columns: for a column's name what it is made of: another column, which gets this name, a
        template such as "{style}-{colour}", or "" to leave the column out.
      image_separator: what separates several images in a cell, each of which becomes a row; None
        where a cell holds one.
    """

    pattern: str | None = setting(
        None,
        "regular expression (RE2) searched in each picture's path below --root or URL; every named "
        "group, such as (?P<item_id>...), becomes a column",
    )
    pattern_column: str | None = setting(
        None, "column that --pattern searches instead", seldom=True
    )
    unmatched: str = setting(
        ERROR, "what becomes of rows that --pattern does not match", choices=(ERROR, SKIP)
    )
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_separator: str | None = setting(
        None, "what separates several images in a cell, such as |; each becomes a row"
    )


def derive(
    table: pa.Table, options: DeriveOptions, places: Places
) -> tuple[pa.Table, tuple[str, ...]]:
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
    if options.image_separator is not None:
        table, notes = _with_single_images(table, options, places)
    if options.pattern is not None:
        table, more = _with_groups(table, options, places)
        notes += more
    if options.columns:
        table = _with_columns(table, options.columns)
    return table, notes


def _with_single_images(
    table: pa.Table, options: DeriveOptions, places: Places
) -> tuple[pa.Table, tuple[str, ...]]:
    """Returns the table with a row for each image in a cell, in the cell's order."""
    separator = options.image_separator
    flag = f"--image_separator={separator}"
    if not separator:
        raise UserError(f"{flag} is not allowed; name what separates images, such as |")
    name = _source_of_images(table, options.columns)
    _need_texts(table, name, flag)
    lists = pc.split_pattern(table[name].combine_chunks(), separator)
    images = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    rows = pc.list_parent_indices(lists).to_numpy()
    filled = pc.not_equal(images, "").to_numpy(zero_copy_only=False)
    counts = np.bincount(rows[filled], minlength=table.num_rows)
    # A cell with nothing in it stays a row, for others to complain of.
    kept = filled | ((counts[rows] == 0) & (np.diff(rows, prepend=-1) > 0))
    several = counts > 1
    for edge in BOX_COLUMNS:
        source = options.columns.get(edge, edge)
        if source in table.column_names:
            column = table[source].cast(pa.string())
            boxed = pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(column, "")), "")
            wrong = np.flatnonzero(several & boxed.to_numpy())
            if len(wrong):
                (place,) = places(table, [wrong[0]])
                raise UserError(
                    f"{place}: column {source!r}: {column[int(wrong[0])].as_py()!r}; a box is of "
                    f"one image, but column {name!r} has {counts[wrong[0]]}"
                )
    table = _put(table.take(pa.array(rows[kept])), name, images.filter(pa.array(kept)))
    count = int(several.sum())
    return table, ((f"rows with several images, now one each: {count:,}",) if count else ())


def _with_groups(
    table: pa.Table, options: DeriveOptions, places: Places
) -> tuple[pa.Table, tuple[str, ...]]:
    """Returns the rows that match the pattern, with a column for each of its groups."""
    pattern = options.pattern or ""
    names = _group_names(pattern)
    searched = options.pattern_column or _source_of_images(table, options.columns)
    by_default = "--pattern (--pattern_column names another)"
    _need_texts(table, searched, "--pattern_column" if options.pattern_column else by_default)
    matches = pc.extract_regex(table[searched], pattern).combine_chunks()
    unmatched = matches.is_null()
    missed = pc.sum(unmatched).as_py() or 0
    notes: tuple[str, ...] = ()
    if missed:
        (first,) = places(table, [pc.index(unmatched, True).as_py()])
        example = table[searched][pc.index(unmatched, True).as_py()].as_py()
        if options.unmatched == ERROR or missed == table.num_rows:
            raise UserError(
                f"{first}: column {searched!r}: {example!r} does not match --pattern={pattern} "
                f"({missed} of {table.num_rows} rows do not)"
                + ("" if missed == table.num_rows else "; --unmatched=skip leaves them out")
            )
        notes = (f"left out: rows that do not match --pattern: {missed:,} (e.g. {example})",)
        table = table.filter(pc.invert(unmatched))
        matches = matches.filter(pc.invert(unmatched))
    for name in names:
        table = _put(table, name, matches.field(name))
    return table, notes


def _source_of_images(table: pa.Table, columns: Mapping[str, str]) -> str:
    """Returns the column that holds the pictures' paths or is to hold them."""
    source = columns.get("image", "image")
    return source if source in table.column_names else "image"


def _group_names(pattern: str) -> list[str]:
    """Returns the names of a pattern's groups.

    Raises:
      UserError: the pattern is wrong; the message says how.
    """
    try:
        found = pc.extract_regex(pa.array([], pa.string()), pattern).type
    except pa.ArrowInvalid as error:
        reason = " ".join(str(error).split())
        if "unnamed groups" in reason:
            reason = "every group needs a name, (?P<name>...), or is written as (?:...)"
        raise UserError(f"--pattern={pattern} is not allowed: {reason}") from error
    names = [found.field(number).name for number in range(found.num_fields)]
    if not names:
        raise UserError(f"--pattern={pattern} has no group; write (?P<item_id>...) for a column")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--pattern={pattern} has two groups {name!r}; names must differ")
    _refuse_reserved(names, f"--pattern={pattern}")
    return names


def _with_columns(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """Returns the table with the columns renamed, made by templates, or left out."""
    _refuse_reserved(columns, "--columns")
    made: dict[str, pa.ChunkedArray] = {}
    renamed: set[str] = set()
    for name, source in columns.items():
        if "{" in source:
            made[name] = _fill_template(table, name, source)
        elif source:
            need = _need if name in BOX_COLUMNS else _need_texts
            need(table, source, f"--columns={name}:{source}")
            made[name] = table[source]
            renamed.add(source)
        else:
            _need(table, name, f"--columns={name}:")
            renamed.add(name)
    table = table.drop_columns(sorted(renamed))
    for name, values in made.items():
        table = _put(table, name, values)
    return table


def _fill_template(table: pa.Table, name: str, template: str) -> pa.ChunkedArray:
    """Returns the template's texts, "" where one of its columns is empty.

    With only some of its columns filled, different things would get the same name.
    """
    flag = f"--columns={name}:{template}"
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
        _need_texts(table, field, flag)
        parts.append(table[field])
        empty = pc.or_(empty, pc.equal(table[field], ""))
    return pc.if_else(empty, "", pc.binary_join_element_wise(*parts, ""))


def _put(table: pa.Table, name: str, values: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Returns the table with a column, in place of one of that name."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _need(table: pa.Table, name: str, flag: str) -> None:
    """Raises a UserError if there is no such column."""
    names = [column for column in table.column_names if column not in (SOURCE_FILE, SOURCE_ROW)]
    if name not in names:
        raise UserError(f"{flag}: no column {name!r}; there are {', '.join(names)}")


def _need_texts(table: pa.Table, name: str, flag: str) -> None:
    """Raises a UserError if there is no such column, or one of numbers, as boxes are."""
    _need(table, name, flag)
    refuse_numbers(table, name, flag)


def _refuse_reserved(names: Mapping[str, str] | list[str], flag: str) -> None:
    for name in names:
        if name in (SOURCE_FILE, SOURCE_ROW) or not name:
            raise UserError(f"{flag}: column {name!r} has a reserved name; choose another")
