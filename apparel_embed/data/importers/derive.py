"""Derives the columns of a dataset from patterns, other columns, and templates."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.common.text import one_line
from apparel_embed.data.importers.layout import ERROR, SKIP
from apparel_embed.data.importers.rows import SOURCE_FILE, SOURCE_ROW, Rows
from apparel_embed.data.manifest import BOX_COLUMNS


@dataclasses.dataclass(frozen=True)
class DeriveOptions:
    """How to derive columns.

    Attributes:
      pattern: a regular expression (RE2) searched in a column; every named group becomes a column
        and replaces an existing one of that name. None for no pattern.
      pattern_column: the column to search in; None for the image paths.
      columns: the source of each column by its name: another column, which is renamed, a template
        such as "{style}-{colour}", or "" to leave the column out.
      image_separator: the text between several images in a cell, each of which becomes a row; None
        if a cell contains one image.
    """

    pattern: str | None = setting(
        None,
        "regular expression (RE2) searched in each image's path below --root or URL; every "
        "named group, such as (?P<item_id>...), becomes a column",
    )
    pattern_column: str | None = setting(None, "column that --pattern searches instead", rare=True)
    unmatched: str = setting(
        ERROR, "what to do with rows that --pattern does not match", choices=(ERROR, SKIP)
    )
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_separator: str | None = setting(
        None, "text between several images in one cell, such as |; each image becomes a row"
    )


def derive(rows: Rows, options: DeriveOptions) -> None:
    """Adds the requested columns; leaves out rows that do not match if `unmatched` is "skip".

    Raises:
      UserError: the pattern is wrong or a row does not match, a column does not exist, or a row
        of several images has a box.
    """
    # The column with the image paths, perhaps before it is renamed.
    images = options.columns.get("image", "image")
    images = images if images in rows.names else "image"
    if options.image_separator is not None:
        _split_images(rows, options, images)
    if options.pattern is not None:
        _add_groups(rows, options.pattern, options, images)
    _add_columns(rows, options.columns)


def _split_images(rows: Rows, options: DeriveOptions, name: str) -> None:
    """Gives each image in a cell its own row, in the cell's order."""
    separator = options.image_separator
    flag = f"--image_separator={separator}"
    if not separator:
        raise UserError(f"{flag}: expected the text between images, such as |")
    lists = pc.split_pattern(rows.texts(name, flag).combine_chunks(), separator)
    images = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    parents = pc.list_parent_indices(lists).to_numpy()
    filled = pc.not_equal(images, "").to_numpy(zero_copy_only=False)
    counts = np.bincount(parents[filled], minlength=rows.table.num_rows)
    # An empty cell stays a row; later checks report it.
    kept = filled | ((counts[parents] == 0) & (np.diff(parents, prepend=-1) > 0))
    for edge in (options.columns.get(edge, edge) for edge in BOX_COLUMNS):
        if edge in rows.names:
            column = pc.fill_null(rows.table[edge].cast(pa.string()), "")
            boxed = pc.not_equal(pc.utf8_trim_whitespace(column), "").to_numpy()
            for row in np.flatnonzero((counts > 1) & boxed):
                reason = f"a box needs a single image, but column {name!r} has {counts[row]}"
                raise rows.wrong(row, edge, reason, column[int(row)].as_py())
    several = int((counts > 1).sum())
    if several:
        rows.notes.append(f"rows with several images, split into one row each: {several:,}")
    rows.table = rows.table.take(pa.array(parents[kept]))
    rows.put(name, images.filter(pa.array(kept)))


def _add_groups(rows: Rows, pattern: str, options: DeriveOptions, images: str) -> None:
    """Adds a column for each group of the pattern."""
    names = _group_names(pattern)
    searched = options.pattern_column or images
    by_default = "--pattern (--pattern_column selects another)"
    texts = rows.texts(searched, "--pattern_column" if options.pattern_column else by_default)
    matches = pc.extract_regex(texts, pattern).combine_chunks()
    missed, total = matches.null_count, len(matches)
    if missed:
        index = pc.index(matches.is_null(), True).as_py()
        if options.unmatched == ERROR or missed == total:
            raise rows.wrong(
                index,
                searched,
                f"does not match --pattern={pattern} ({missed} of {total} rows do not)"
                + ("" if missed == total else "; --unmatched=skip leaves them out"),
            )
        note = f"rows that do not match --pattern: {missed:,} (e.g. {texts[index].as_py()})"
        rows.leave_out(matches.is_null(), note)
    for name in names:
        rows.put(name, matches.drop_null().field(name))


def _group_names(pattern: str) -> list[str]:
    """Returns the names of a pattern's groups; raises a UserError if it is wrong."""
    flag = f"--pattern={pattern}"
    try:
        found = pc.extract_regex(pa.array([], pa.string()), pattern).type
    except pa.ArrowInvalid as error:
        reason = one_line(error)
        if "unnamed groups" in reason:
            reason = "name every group, (?P<name>...), or write it as (?:...)"
        raise UserError(f"{flag} is invalid: {reason}") from error
    names = [found.field(number).name for number in range(found.num_fields)]
    if not names:
        raise UserError(f"{flag} has no named group; write (?P<item_id>...) for a column")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{flag} has two groups named {name!r}; rename one")
    _refuse_reserved(names, flag)
    return names


def _add_columns(rows: Rows, columns: Mapping[str, str]) -> None:
    """Renames columns, fills them from templates, or leaves them out, all at once."""
    _refuse_reserved(columns, "--columns")
    made: dict[str, pa.ChunkedArray] = {}
    renamed: set[str] = set()
    for name, source in columns.items():
        flag = f"--columns={name}:{source}"
        if "{" in source:
            made[name] = _fill_template(rows, source, flag)
        elif source:
            find = rows.column if name in BOX_COLUMNS else rows.texts
            made[name] = find(source, flag)
            renamed.add(source)
        else:
            rows.column(name, flag)
            renamed.add(name)
    rows.table = rows.table.drop_columns(sorted(renamed))
    for name, values in made.items():
        rows.put(name, values)


def _fill_template(rows: Rows, template: str, flag: str) -> pa.ChunkedArray:
    """Returns the filled template per row, "" if one of its columns is empty.

    A partly filled template would give different things the same name.
    """
    parts: list[pa.ChunkedArray | pa.Scalar] = []
    empty = pa.chunked_array([pa.repeat(pa.scalar(False), rows.table.num_rows)])
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"{flag} is invalid: {error}") from error
    for text, field, form, conversion in pieces:
        parts.append(pa.scalar(text))
        if field is None:
            continue
        if form or conversion:
            raise UserError(f"{flag} is invalid: expected only a column name in braces")
        parts.append(rows.texts(field, flag))
        empty = pc.or_(empty, pc.equal(parts[-1], ""))
    return pc.if_else(empty, "", pc.binary_join_element_wise(*parts, ""))


def _refuse_reserved(names: Iterable[str], flag: str) -> None:
    for name in names:
        if name in (SOURCE_FILE, SOURCE_ROW) or not name:
            raise UserError(f"{flag}: column {name!r} has a reserved name; choose another")
