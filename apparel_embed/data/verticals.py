"""Renames, merges or excludes verticals of a manifest, or values of other columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of, find_inconsistent_item


def parse_pairs(
    flag: str, entries: Sequence[str], *, allowed: str, what: str, at_last_colon: bool = False
) -> dict[str, str]:
    """Parses pairs of the form `name:value`; spaces around names and values are ignored.

    Args:
      flag: name of the flag, for messages.
      entries: pairs; values may be empty.
      allowed: description of a valid entry, for messages.
      what: kind of the named things, for messages.
      at_last_colon: whether names may contain colons and values may not, or the other way round.

    Returns:
      Values by name, in order.

    Raises:
      UserError: if an entry has no colon or no name, or a name occurs twice.
    """
    pairs: dict[str, str] = {}
    for entry in entries:
        parts = entry.rpartition(":") if at_last_colon else entry.partition(":")
        name, colon, value = (part.strip() for part in parts)
        if not colon or not name:
            raise UserError(f"--{flag}: {entry!r} is invalid; {allowed}")
        if name in pairs:
            raise UserError(f"--{flag}: {name!r} occurs twice; name each {what} once")
        pairs[name] = value
    return pairs


def parse_mapping(entries: Sequence[str], column: str = "vertical") -> dict[str, str]:
    """Parses new names of verticals, or of values of another column.

    Args:
      entries: pairs `old:new`; nothing after the last colon excludes the vertical.
      column: column of the values; the flag is named after it.

    Returns:
      New names by old name, "" for excluded values.

    Raises:
      UserError: if an entry has no colon or no old name, or an old name occurs twice.
    """
    allowed = f"expected old:new, or old: to exclude that {column}"
    flag = f"map_{column}s"
    return parse_pairs(flag, entries, allowed=allowed, what=column, at_last_colon=True)


def map_verticals(table: pa.Table, mapping: Mapping[str, str]) -> pa.Table:
    """Applies `map_values` to verticals and checks that every item has one vertical.

    Raises:
      UserError: as in `map_values`, or if an item would be in two verticals.
    """
    if not mapping:
        return table
    table = map_values(table, "vertical", mapping)
    inconsistent = find_inconsistent_item(table, ["vertical"])
    if inconsistent is not None:
        _, *rows = inconsistent
        one, other = (table["vertical"][row].as_py() for row in rows)
        raise UserError(
            f"--map_verticals: item_id {table['item_id'][rows[0]].as_py()!r} would be in the "
            f"verticals {one!r} and {other!r}; an item belongs to one vertical"
        )
    return table


def map_values(table: pa.Table, column: str, mapping: Mapping[str, str]) -> pa.Table:
    """Renames values of a column, merges those with the same new name, and excludes some.

    Names are mapped simultaneously: `{"a": "b", "b": "a"}` swaps two names.

    Args:
      table: table with that column, strings without nulls.
      column: name of the column, in the singular; the flag in messages is named after it.
      mapping: new names by old name; an empty new name excludes the value's rows. Other values do
        not change.

    Returns:
      The table with the new values, without the excluded rows; the others keep their order.

    Raises:
      UserError: if the table does not have a value, or no row is left.
    """
    if not mapping:
        return table
    codes, names = codes_of(table[column])
    known = names.to_pylist()
    for old in mapping:
        if old not in known:
            raise UserError(
                f"--map_{column}s: no {column} {old!r}; expected one of {', '.join(sorted(known))}"
            )
    targets = [mapping.get(name, name) for name in known]
    # Values that were already empty are not excluded.
    kept = np.array([bool(target) or name not in mapping for name, target in zip(known, targets)])
    mapped = pa.array(targets, names.type).take(pa.array(codes))
    table = table.set_column(table.column_names.index(column), column, mapped)
    if not kept.all():
        table = table.filter(pa.array(kept[codes]))
    if not table.num_rows:
        raise UserError(
            f"--map_{column}s leaves no row: all {column}s ({', '.join(sorted(known))}) are "
            "excluded; keep at least one"
        )
    return table
