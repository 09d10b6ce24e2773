"""Operations on whole table columns: value codes, duplicate rows, items with conflicting values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Numbers the distinct values of a column in order of first appearance.

    Args:
      column: n values, none of them null.

    Returns:
      The code of each row's value, int32 [n], and the distinct values.
    """
    encoded = column.dictionary_encode()
    # Every chunk has the same dictionary, but a column without chunks has none.
    values = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], column.type)
    indices = [chunk.indices.to_numpy() for chunk in encoded.chunks]
    return np.concatenate([np.empty(0, np.int32), *indices]), values


def ranked_codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Numbers the distinct values of a column in sorted order, texts by code point.

    Args:
      column: n values, none of them null.

    Returns:
      The code of each row's value, int32 [n], and the distinct values, sorted.
    """
    codes, values = codes_of(column)
    order = pc.sort_indices(values)
    ranks = np.empty(len(values), np.int32)
    ranks[order.to_numpy()] = np.arange(len(values), dtype=np.int32)
    return ranks[codes], values.take(order)


def first_alike(table: pa.Table, names: Sequence[str]) -> np.ndarray:
    """Finds, for each row, the first row with the same values.

    Args:
      table: n rows.
      names: columns of text, or of numbers, which may be null but not NaN. The first must be text;
        the fewer rows share a value in it, the faster.

    Returns:
      Row indices, int64 [n].
    """
    first = np.arange(table.num_rows)
    # The text of 10 million rows exceeds 32-bit offsets.
    codes, _ = codes_of(table[names[0]].cast(pa.large_string()))
    rows = np.flatnonzero(np.bincount(codes, minlength=1)[codes] > 1)
    groups = codes[rows].astype(np.int64)
    for name in names[1:]:
        column = table[name].take(pa.array(rows))
        codes, values = codes_of(pc.fill_null(column, np.nan) if column.null_count else column)
        # Renumbered each time to keep the products small.
        groups = np.unique(groups * len(values) + codes, return_inverse=True)[1]
    _, firsts, inverse = np.unique(groups, return_index=True, return_inverse=True)
    first[rows] = rows[firsts[inverse]]
    return first


def find_inconsistent(items: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Finds the rows whose value differs from that in the first row of their item.

    Args:
      items: int [n], item codes from 0.
      values: [n], of any type.

    Returns:
      Row indices, int64, ascending; empty if every item has a single value.
    """
    first = np.empty(items.max(initial=-1) + 1, np.int64)
    # The last write for an item wins, and in reverse order that is its first row.
    first[items[::-1]] = np.arange(len(items))[::-1]
    return np.flatnonzero(values != values[first[items]])


def find_inconsistent_item(table: pa.Table, columns: Sequence[str]) -> tuple[str, int, int] | None:
    """Finds an item with two values in a column that allows one value per item.

    Args:
      table: `item_id`, whose blank values are ignored, and the columns, all without nulls.
      columns: the columns to search, in this order.

    Returns:
      The column, the first row of the earliest such item, and its first row with another value;
      None if there is no such item.
    """
    items, ids = codes_of(table["item_id"])
    rows = np.flatnonzero(~is_blank(ids).to_numpy(zero_copy_only=False)[items])
    items = items[rows]
    for column in columns:
        inconsistent = find_inconsistent(items, codes_of(table[column])[0][rows])
        if inconsistent.size:
            first = np.flatnonzero(np.isin(items, items[inconsistent]))[0]
            other = inconsistent[items[inconsistent] == items[first]][0]
            return column, int(rows[first]), int(rows[other])
    return None


def is_blank(texts: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Returns whether each text is empty or only white space."""
    return pc.equal(pc.utf8_trim_whitespace(texts), "")
