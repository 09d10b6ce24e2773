"""Names that look like misspellings of one another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.data.columns import codes_of
from apparel_embed.data.inspection.findings import ERROR, WARNING, Finding
from apparel_embed.data.inspection.labels import first_rows
from apparel_embed.wording import counted


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
