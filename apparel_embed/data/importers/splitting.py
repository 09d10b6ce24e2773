"""Splits for data without: by garment, so that none leaks, alike in all verticals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.compute as pc

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import check_settings, same_as, setting
from apparel_embed.data.columns import codes_of, find_torn
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.manifest import UNLABELLED, hold_out
from apparel_embed.data.prepare_plan import PrepareConfig


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """Shares of the training groups to hold out."""

    val_fraction: float = setting(
        0.0,
        "share of the training groups of each vertical to hold out as val; 0 is none",
        0.0,
        0.9,
    )
    test_fraction: float = setting(
        0.0,
        "share of the training groups of each vertical to hold out as test; 0 is none",
        0.0,
        0.9,
    )
    by: str = same_as(PrepareConfig, "val_group_column")
    seed: int = same_as(PrepareConfig, "seed")

    def __post_init__(self) -> None:
        """Raises a UserError if the shares are out of range or leave nothing to train on."""
        check_settings(self)
        if self.val_fraction + self.test_fraction >= 1:
            raise UserError(
                f"--val_fraction={self.val_fraction} and --test_fraction={self.test_fraction} "
                "leave nothing to train on; their sum must be below 1"
            )


def split(rows: Rows, options: SplitOptions) -> None:
    """Moves whole groups of split train to test and to val, the same share in each vertical.

    A share is rounded, but at least one group of a vertical is held out, test first, as long as one
    stays to train on. The order of the rows has no influence on what is chosen.

    Args:
      rows: of a manifest, checked.
      options: shares, groups and seed.

    Raises:
      UserError: there is no such column, or see `hold_out`.
    """
    by = options.by
    rows.texts(by, f"--split_by={by}")
    before = rows.table.num_rows
    taught = 1.0
    for name, fraction in (("test", options.test_fraction), ("val", options.val_fraction)):
        if fraction:
            if pc.any(pc.equal(rows.table["split"], name)).as_py():
                raise UserError(
                    f"--{name}_fraction={fraction} is not allowed: the dataset has rows of split "
                    f"{name} already, and they stay"
                )
            rows.table = hold_out(rows.table, fraction / taught, by, options.seed, into=name)
            taught -= fraction
    if taught < 1:
        _note_torn(rows, by)
    lost = before - rows.table.num_rows
    if lost:
        rows.notes.append(f"left out: unlabelled rows whose {by} is held out: {lost:,}")
    if not pc.any(pc.equal(rows.table["split"], "test")).as_py():
        rows.notes.append(
            "no row is of split test, so no model can be evaluated; --test_fraction makes one"
        )


def _note_torn(rows: Rows, by: str) -> None:
    """Notes that some groups were in several splits before anything was split."""
    labelled = rows.table.filter(pc.not_equal(rows.table["split"], UNLABELLED))
    labelled = labelled.filter(pc.not_equal(labelled[by], ""))
    groups, names = codes_of(labelled[by])
    torn = np.unique(groups[find_torn(groups, codes_of(labelled["split"])[0])])
    if len(torn):
        rows.notes.append(
            f"values of {by} that the data came with in several splits: {len(torn):,} of "
            f"{len(names):,} (e.g. {names[torn[0]].as_py()})"
        )
