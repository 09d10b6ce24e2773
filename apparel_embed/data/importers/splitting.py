"""Splits data that comes without splits: whole garments, the same share in each vertical."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import check_settings, same_as, setting
from apparel_embed.data.columns import codes_of, find_inconsistent
from apparel_embed.data.hold_out import hold_out
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepare_plan import PrepareConfig


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """The fractions of the training groups to hold out."""

    val_fraction: float = setting(
        0.0,
        "fraction of the training groups of each vertical to hold out as val; 0 for none",
        0.0,
        0.9,
    )
    test_fraction: float = setting(
        0.0,
        "fraction of the training groups of each vertical to hold out as test; 0 for none",
        0.0,
        0.9,
    )
    by: str = same_as(PrepareConfig, "val_group_column")
    seed: int = same_as(PrepareConfig, "seed")

    def __post_init__(self) -> None:
        """Raises a UserError if the fractions are out of range or leave nothing to train on."""
        check_settings(self)
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"--val_fraction={self.val_fraction} and --test_fraction={self.test_fraction} "
                "leave nothing to train on; their sum must be below 1"
            )


def split(rows: Rows, options: SplitOptions) -> None:
    """Moves whole groups of split train to test and to val, the same fraction in each vertical.

    The number of groups is rounded, but at least one per vertical is held out, test first, as long
    as one remains to train on. The choice does not depend on the order of the rows.

    Args:
      rows: a manifest's rows, checked.
      options: fractions, group column and seed.

    Raises:
      UserError: the column does not exist, or see `hold_out`.
    """
    by = options.by
    rows.texts(by, f"--split_by={by}")
    before = rows.table.num_rows
    remaining = 1.0
    for name, fraction in (("test", options.test_fraction), ("val", options.val_fraction)):
        if fraction:
            if pc.any(pc.equal(rows.table["split"], name)).as_py():
                raise UserError(
                    f"--{name}_fraction={fraction}: the dataset already has rows of split {name}; "
                    "omit the flag"
                )
            rows.table = hold_out(rows.table, fraction / remaining, by, options.seed, into=name)
            remaining -= fraction
    if remaining < 1:
        _note_divided(rows, by)
    lost = before - rows.table.num_rows
    if lost:
        rows.notes.append(f"left out: unlabelled rows whose {by} is held out: {lost:,}")
    if not pc.any(pc.equal(rows.table["split"], "test")).as_py():
        rows.notes.append(
            "no rows of split test, so no model can be evaluated; --test_fraction holds some out"
        )


def _note_divided(rows: Rows, by: str) -> None:
    """Adds a note if groups are in several splits; `hold_out` never divides one."""
    labelled = rows.table.filter(pc.not_equal(rows.table["split"], UNLABELLED))
    labelled = labelled.filter(pc.not_equal(labelled[by], ""))
    groups, names = codes_of(labelled[by])
    rows_elsewhere = find_inconsistent(groups, codes_of(labelled["split"])[0])
    divided = np.unique(groups[rows_elsewhere])
    if len(divided):
        rows.notes.append(
            f"values of {by} that the dataset itself has in several splits: {len(divided):,} of "
            f"{len(names):,} (e.g. {names[divided[0]].as_py()})"
        )
