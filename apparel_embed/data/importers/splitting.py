"""Splits for data without: by garment, so that none leaks, alike in all verticals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import codes_of, find_torn
from apparel_embed.data.hold_out import hold_out
from apparel_embed.data.importers.imported import refuse_numbers
from apparel_embed.data.manifest import UNLABELLED


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """Shares of the training groups to hold out.

    Attributes:
      val_fraction: share of split train to become val, in [0, 1); 0 for none.
      test_fraction: share of split train to become test, in [0, 1); 0 for none.
      by: the column whose distinct values are the groups, e.g. `item_id` or `style_id`.
      seed: another seed gives another choice.
    """

    val_fraction: float = 0.0
    test_fraction: float = 0.0
    by: str = "item_id"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises a UserError if the shares are out of range or leave nothing to train on."""
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UserError(f"--{name}={value} is not allowed; it must be in [0, 1)")
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"--val_fraction={self.val_fraction} and --test_fraction={self.test_fraction} "
                "leave nothing to train on; their sum must be below 1"
            )


def split(table: pa.Table, options: SplitOptions) -> tuple[pa.Table, tuple[str, ...]]:
    """Moves whole groups of split train to test and to val, the same share in each vertical.

    A share is rounded, but at least one group of a vertical is held out, test first, as long as one
    stays to train on. The order of the rows has no influence on what is chosen.

    Args:
      table: rows of a manifest as `check_rows` returns them.
      options: shares, groups and seed.

    Returns:
      The table, and notes on what the user should know.

    Raises:
      UserError: there is no such column, or see `hold_out`.
    """
    if options.by not in table.column_names:
        raise UserError(
            f"--split_by={options.by}: no column {options.by!r}; there are "
            f"{', '.join(table.column_names)}"
        )
    refuse_numbers(table, options.by, f"--split_by={options.by}")
    before = table.num_rows
    taught = 1.0
    for name, fraction in (("test", options.test_fraction), ("val", options.val_fraction)):
        if fraction:
            if pc.any(pc.equal(table["split"], name)).as_py():
                raise UserError(
                    f"--{name}_fraction={fraction} is not allowed: the dataset has rows of split "
                    f"{name} already, and they stay"
                )
            table = hold_out(table, fraction / taught, options.by, options.seed, into=name)
            taught -= fraction
    if taught == 1:
        return table, ()
    notes = check_parents(table, options.by)
    lost = before - table.num_rows
    if lost:
        notes += (f"left out: unlabelled rows whose {options.by} is held out: {lost:,}",)
    return table, notes


def check_parents(table: pa.Table, by: str) -> tuple[str, ...]:
    """Returns a note if some groups were in several splits before anything was split.

    Args:
      table: rows of a manifest after splitting.
      by: the column whose values are the groups.
    """
    labelled = table.select([by, "split"]).filter(pc.not_equal(table["split"], UNLABELLED))
    labelled = labelled.filter(pc.not_equal(labelled[by], ""))
    groups, names = codes_of(labelled[by])
    torn = names.take(
        pa.array(np.unique(groups[find_torn(groups, codes_of(labelled["split"])[0])]))
    )
    if not len(torn):
        return ()
    return (
        f"values of {by} that the data came with in several splits: {len(torn):,} of "
        f"{len(names):,} (e.g. {torn[0].as_py()})",
    )


def untested(table: pa.Table) -> tuple[str, ...]:
    """Returns a note if there is no row of split test."""
    if pc.any(pc.equal(table["split"], "test")).as_py():
        return ()
    return ("no row is of split test, so no model can be evaluated; --test_fraction makes one",)
