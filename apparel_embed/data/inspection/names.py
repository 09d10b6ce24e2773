"""Names that look like misspellings of one another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.text import counted
from apparel_embed.data.columns import codes_of
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding, some_names
from apparel_embed.data.inspection.labels import first_rows


def _without_space(names: pa.Array) -> pa.Array:
    # Cf: marks that nobody sees, such as a soft hyphen or a zero-width space.
    return pc.replace_substring_regex(names, r"[\s\p{Z}\p{Cf}]+", "")


def _without_zeros(names: pa.Array) -> pa.Array:
    # Spreadsheets make 7 of 007, and 7.0 where a column has empty cells.
    names = pc.replace_substring_regex(names, r"^0+(.)", r"\1")
    return pc.replace_substring_regex(names, r"^([0-9]+)\.0+$", r"\1")


# What may set two names apart without meaning to, each with what takes it away.
_FOLDS = {
    "case": pc.utf8_lower,
    "leading zeros or a trailing .0": _without_zeros,
    "white space or invisible marks": _without_space,
    "Unicode form": lambda names: pc.utf8_normalize(names, "NFKC"),
}
# What data frames, databases and spreadsheets write for a value that is missing, in lower case.
_PLACEHOLDERS = [
    *("nan", "-nan", "<nan>", "null", "(null)", "none", "nil", "nat", "undefined"),
    *("na", "n/a", "<na>", "#na", "#n/a", "#ref!", "#value!", "#name?", "#div/0!", "#null!"),
]


@dataclasses.dataclass(frozen=True, eq=False)
class Alike:
    """Names that differ by nothing that is likely meant.

    Attributes:
      names: int64, places of names among those given, ascending.
      firsts: int64, for each the first name that it is like.
      reasons: what sets it apart from that one.
    """

    names: np.ndarray
    firsts: np.ndarray
    reasons: tuple[str, ...]


def find_alike(names: pa.Array) -> Alike:
    """Finds names that differ only by case, white space, leading zeros or Unicode form.

    Args:
      names: distinct texts.
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
        same = pc.equal(fold(here), fold(there)).to_numpy(zero_copy_only=False)
        reasons[same] = reason
    return Alike(places, first[places], tuple(reasons.tolist()))


def check_names(names: pa.Array, rows: np.ndarray, *, column: str) -> list[Finding]:
    """Returns what is to be said of names that are alike, if any are.

    Args:
      names: distinct values of a column.
      rows: int64, the first row of each.
      column: `item_id` or `vertical`.
    """
    alike = find_alike(names)
    if not len(alike.names):
        return []
    here, there = names.take(pa.array(alike.names)), names.take(pa.array(alike.firsts))
    what = "verticals" if column == "vertical" else "item ids"
    return [
        Finding(
            f"{what.replace(' ', '_')}_alike",
            ERROR if column == "vertical" else WARNING,
            len(alike.names),
            f"{counted(len(alike.names), 'name')} in column {column} differ"
            + ("s" if len(alike.names) == 1 else "")
            + " from another only by case, white space, leading zeros or Unicode form.",
            "If they mean the same, write them the same: their pictures now count as different.",
            rows=rows[alike.names],
            others=rows[alike.firsts],
            details=[
                f"{name!r} is like {other!r} but for {reason}"
                for name, other, reason in zip(here.to_pylist(), there.to_pylist(), alike.reasons)
            ],
        )
    ]


def check_placeholders(
    names: pa.Array, rows: np.ndarray, counts: np.ndarray, *, column: str
) -> list[Finding]:
    """Returns what is to be said of names that commonly stand for a missing value, if any do.

    Args:
      names: distinct values of a column.
      rows: int64, the first row of each.
      counts: int, the number of rows of each.
      column: where they are; other than `item_id` and `vertical` it matters little.
    """
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(names))
    known = pa.array(_PLACEHOLDERS, names.type)
    found = np.flatnonzero(pc.is_in(folded, value_set=known).to_numpy(zero_copy_only=False))
    if not len(found):
        return []
    texts = names.take(pa.array(found)).to_pylist()
    details = [f"{text!r} in {counted(counts[row], 'row')}" for text, row in zip(texts, found)]
    total = int(counts[found].sum())
    return [
        Finding(
            "placeholder_names",
            WARNING if column in ("item_id", "vertical") else NOTE,
            total,
            f"{counted(total, 'row')} with a text in column {column} that commonly stands for a "
            f"missing value: {some_names(details)}.",
            "Where the value is not known, leave the cell empty, or leave the row out: all rows "
            "with the text now count as one of that name.",
            rows=rows[found],
            details=details,
        )
    ]
