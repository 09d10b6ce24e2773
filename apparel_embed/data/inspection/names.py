"""Finds names that are probably variants of one another, or placeholders for missing values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.text import counted
from apparel_embed.data.columns import codes_of
from apparel_embed.data.inspection.findings import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    found,
    some_names,
)
from apparel_embed.data.inspection.labels import Labels, first_rows
from apparel_embed.data.manifest import BOX_COLUMNS, REQUIRED_COLUMNS


def _without_space(names: pa.Array) -> pa.Array:
    # Cf: invisible characters, such as a soft hyphen or a zero-width space.
    return pc.replace_substring_regex(names, r"[\s\p{Z}\p{Cf}]+", "")


def _without_zeros(names: pa.Array) -> pa.Array:
    # Spreadsheets turn 007 into 7, or into 7.0 if the column has empty cells.
    names = pc.replace_substring_regex(names, r"^0+(.)", r"\1")
    return pc.replace_substring_regex(names, r"^([0-9]+)\.0+$", r"\1")


# Unintended differences between names, each with the function that removes it.
_FOLDS = {
    "case": pc.utf8_lower,
    "leading zeros or a trailing .0": _without_zeros,
    "white space or invisible marks": _without_space,
    "Unicode form": lambda names: pc.utf8_normalize(names, "NFKC"),
}
# Text that data frames, databases and spreadsheets write for missing values, in lower case.
_PLACEHOLDERS = [
    *("nan", "-nan", "<nan>", "null", "(null)", "none", "nil", "nat", "undefined"),
    *("na", "n/a", "<na>", "#na", "#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!"),
]
_KNOWN_COLUMNS = (*REQUIRED_COLUMNS, "split", "role", *BOX_COLUMNS)


def check_all_names(labels: Labels, table: pa.Table) -> Iterator[Finding]:
    """Yields findings about the names of verticals and items, and the dataset's extra columns.

    Args:
      labels: the labels of the rows.
      table: the manifest. Its extra columns may contain groups to split by.
    """
    known = labels.known_items
    items, rows = labels.items.take(pa.array(known)), labels.first_rows[known]
    vertical, names = codes_of(table["vertical"].cast(pa.large_string()))
    yield from check_names(names, first_rows(vertical), column="vertical")
    yield from check_names(items, rows, column="item_id")
    yield from check_placeholders(items, rows, labels.images_of_items[known], column="item_id")
    own = [name for name in table.column_names if name not in _KNOWN_COLUMNS]
    for column in ("vertical", *own):
        codes, names = codes_of(table[column].cast(pa.large_string()))
        counts = np.bincount(codes, minlength=len(names))
        yield from check_placeholders(names, first_rows(codes), counts, column=column)


def find_alike(names: pa.Array) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Finds names that differ only by case, white space, leading zeros or Unicode form.

    Args:
      names: distinct texts.

    Returns:
      Indices of such names, ascending; for each the index of the first similar name, and the
      difference between the two.
    """
    folded = names
    for fold in reversed(_FOLDS.values()):
        folded = fold(folded)
    codes, _ = codes_of(pa.chunked_array([folded]))
    first = first_rows(codes)[codes]
    places = np.flatnonzero(first != np.arange(len(codes)))
    here, there = names.take(pa.array(places)), names.take(pa.array(first[places]))
    reasons = np.full(len(places), "several of these", object)
    for reason, fold in _FOLDS.items():
        reasons[pc.equal(fold(here), fold(there)).to_numpy(zero_copy_only=False)] = reason
    return places, first[places], reasons.tolist()


def check_names(names: pa.Array, rows: np.ndarray, *, column: str) -> Iterator[Finding]:
    """Yields a finding about names that differ only slightly, if any do.

    Args:
      names: distinct values of a column.
      rows: int64, the first row of each name.
      column: `item_id` or `vertical`.
    """
    places, firsts, reasons = find_alike(names)
    here, there = names.take(pa.array(places)), names.take(pa.array(firsts))
    yield from found(
        "verticals_alike" if column == "vertical" else "item_ids_alike",
        ERROR if column == "vertical" else WARNING,
        len(places),
        "name",
        f"in column {column} differ{'s' * (len(places) == 1)} from another only by case, white "
        "space, leading zeros or Unicode form.",
        "If they mean the same, spell them the same: their images now count as different.",
        rows=rows[places],
        others=rows[firsts],
        details=[
            f"{name!r} differs from {other!r} only in {reason}"
            for name, other, reason in zip(here.to_pylist(), there.to_pylist(), reasons)
        ],
    )


def check_placeholders(
    names: pa.Array, rows: np.ndarray, counts: np.ndarray, *, column: str
) -> Iterator[Finding]:
    """Yields a finding about names that commonly stand for a missing value, if any do.

    Args:
      names: distinct values of a column.
      rows: int64, the first row of each name.
      counts: int, the number of rows of each name.
      column: their column; only `item_id` and `vertical` give warnings, others give notes.
    """
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(names))
    known = pa.array(_PLACEHOLDERS, names.type)
    places = np.flatnonzero(pc.is_in(folded, value_set=known).to_numpy(zero_copy_only=False))
    texts = names.take(pa.array(places)).to_pylist()
    details = [f"{text!r} in {counted(n, 'row')}" for text, n in zip(texts, counts[places])]
    total = int(counts[places].sum())
    yield from found(
        "placeholder_names",
        WARNING if column in ("item_id", "vertical") else NOTE,
        total,
        "row",
        f"with text in column {column} that commonly stands for a missing value: "
        f"{some_names(details)}.",
        "If the value is unknown, leave the cell empty or omit the row: all rows with the same "
        "text now share one name.",
        rows=rows[places],
        details=details,
    )
