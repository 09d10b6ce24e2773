"""Verticals of a manifest, or other values, renamed, merged or left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of, find_torn
from apparel_embed.data.pairs import parse_pairs


def parse_mapping(entries: Sequence[str], column: str = "vertical") -> dict[str, str]:
    """Reads what verticals, or values of another column, are to become.

    Args:
      entries: each `old:new`; what is after the last colon is the new name, nothing there leaves
        the vertical out.
      column: what they are values of; the flag is named after it.

    Returns:
      New names by old ones, "" for what is left out.

    Raises:
      UserError: an entry without a colon or an old name, or an old name that is there twice.
    """
    return parse_pairs(
        f"map_{column}s",
        entries,
        allowed=f"each is old:new, or old: to leave that {column} out",
        what=column,
        at_last_colon=True,
    )


def map_verticals(table: pa.Table, mapping: Mapping[str, str]) -> pa.Table:
    """Renames verticals, merges those that get the same name, and leaves some out.

    All at once: `{"a": "b", "b": "a"}` swaps two names.

    Args:
      table: at least the columns `item_id` and `vertical`, strings without nulls; an empty
        `item_id` is no item.
      mapping: new names by old ones; an empty new name leaves the vertical's rows out. Verticals
        that are not named stay as they are.

    Returns:
      The table with other names in `vertical`, without the rows left out. The rows keep their
      order.

    Raises:
      UserError: a vertical that the table does not have, an item that would be in two verticals,
        or no row is left.
    """
    if not mapping:
        return table
    table = map_values(table, "vertical", mapping)
    _check_items(table)
    return table


def map_values(table: pa.Table, column: str, mapping: Mapping[str, str]) -> pa.Table:
    """Renames values of a column, merges those that get the same name, and leaves some out.

    As `map_verticals`, for any column, and whatever becomes of the items.

    Args:
      table: at least that column, strings without nulls.
      column: its name in the singular; the flag in messages is named after it.
      mapping: new names by old ones.

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


def _check_items(table: pa.Table) -> None:
    """Raises a UserError if an item is in two verticals."""
    items, ids = codes_of(table["item_id"])
    verticals, names = codes_of(table["vertical"])
    no_item = pc.equal(pc.utf8_trim_whitespace(ids), "").to_numpy(zero_copy_only=False)
    named = np.flatnonzero(~no_item[items])
    torn = named[find_torn(items[named], verticals[named])]
    if torn.size:
        item = items[torn[0]]
        first = np.flatnonzero(items == item)[0]
        one, other = (names[verticals[row]].as_py() for row in (first, torn[0]))
        raise UserError(
            f"--map_verticals: item_id {ids[item].as_py()!r} would be in the verticals {one!r} and "
            f"{other!r}; an item belongs to one vertical"
        )
