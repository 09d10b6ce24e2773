"""Verticals of a manifest, or other values, renamed, merged or left out, as flags say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of, find_torn_item


def parse_pairs(
    flag: str, entries: Sequence[str], *, allowed: str, what: str, at_last_colon: bool = False
) -> dict[str, str]:
    """Reads pairs, each `name:value`; spaces around names and values do not count.

    Args:
      flag: name of the flag that they come from.
      entries: the pairs; values may be empty.
      allowed: what an entry is to be like, for the message.
      what: what is named, for the message.
      at_last_colon: names may hold colons, values may not; else the other way round.

    Returns:
      Values by names, in their order.

    Raises:
      UserError: an entry without a colon or a name, or a name that is there twice.
    """
    pairs: dict[str, str] = {}
    for entry in entries:
        parts = entry.rpartition(":") if at_last_colon else entry.partition(":")
        name, colon, value = (part.strip() for part in parts)
        if not colon or not name:
            raise UserError(f"--{flag}: {entry!r} is not allowed; {allowed}")
        if name in pairs:
            raise UserError(f"--{flag}: {name!r} is there twice; name each {what} once")
        pairs[name] = value
    return pairs


def parse_mapping(entries: Sequence[str], column: str = "vertical") -> dict[str, str]:
    """Reads what verticals, or values of another column, are to become.

    Args:
      entries: each `old:new`; nothing after the last colon leaves the vertical out.
      column: what they are values of; the flag is named after it.

    Returns:
      New names by old ones, "" for what is left out.

    Raises:
      UserError: an entry without a colon or an old name, or an old name that is there twice.
    """
    allowed = f"each is old:new, or old: to leave that {column} out"
    flag = f"map_{column}s"
    return parse_pairs(flag, entries, allowed=allowed, what=column, at_last_colon=True)


def map_verticals(table: pa.Table, mapping: Mapping[str, str]) -> pa.Table:
    """Does what `map_values` does to verticals, of which an item has one.

    Raises:
      UserError: as `map_values`, or an item would be in two verticals.
    """
    if not mapping:
        return table
    table = map_values(table, "vertical", mapping)
    torn = find_torn_item(table, ["vertical"])
    if torn is not None:
        one, other = (table["vertical"][row].as_py() for row in torn[1:])
        raise UserError(
            f"--map_verticals: item_id {table['item_id'][torn[1]].as_py()!r} would be in the "
            f"verticals {one!r} and {other!r}; an item belongs to one vertical"
        )
    return table


def map_values(table: pa.Table, column: str, mapping: Mapping[str, str]) -> pa.Table:
    """Renames values of a column, merges those that get the same name, and leaves some out.

    All at once: `{"a": "b", "b": "a"}` swaps two names.

    Args:
      table: at least that column, strings without nulls.
      column: its name in the singular; the flag in messages is named after it.
      mapping: new names by old ones; an empty new name leaves the value's rows out. Values that are
        not named stay as they are.

    Returns:
      The table with other values, without the rows left out; the others keep their order.

    Raises:
      UserError: a value that the table does not have, or no row is left.
    """
    if not mapping:
        return table
    codes, names = codes_of(table[column])
    known = names.to_pylist()
    for old in mapping:
        if old not in known:
            raise UserError(
                f"--map_{column}s: no {column} {old!r}; there are {', '.join(sorted(known))}"
            )
    targets = [mapping.get(name, name) for name in known]
    # What was empty before is not what is left out.
    kept = np.array([bool(target) or name not in mapping for name, target in zip(known, targets)])
    mapped = pa.array(targets, names.type).take(pa.array(codes))
    table = table.set_column(table.column_names.index(column), column, mapped)
    if not kept.all():
        table = table.filter(pa.array(kept[codes]))
    if not table.num_rows:
        raise UserError(
            f"--map_{column}s leaves no row: all {column}s ({', '.join(sorted(known))}) are left "
            "out; keep at least one"
        )
    return table
