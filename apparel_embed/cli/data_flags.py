"""Flags of how pictures are prepared and split, and the configurations made from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from apparel_embed.cli.define import define_number, define_seed
from apparel_embed.data.pictures import LARGEST_MAX_PIXELS, PictureSettings
from apparel_embed.data.prepare import PrepareConfig
from apparel_embed.data.prepare_plan import USUAL_VAL_FRACTION
from apparel_embed.data.verticals import parse_mapping

_MOST_HELD_OUT = 0.9


class MapFlag:
    """Other names for the values of a column.

    Args:
      column: the column, in the singular.
      example: entries as they are given.
    """

    def __init__(self, column: str, example: str) -> None:
        self.column = column
        self._entries = flags.DEFINE_list(
            f"map_{column}s",
            [],
            f"comma-separated {column}s that get another name, each old:new, e.g. {example}; those "
            f"that get the same are merged, and old: leaves that {column}'s rows out",
        )

    @property
    def value(self) -> dict[str, str]:
        """New names by old ones.

        Raises:
          UserError: an entry that is not allowed.
        """
        return parse_mapping(self._entries.value, self.column)


def map_verticals_flag() -> MapFlag:
    """Returns the flag of other names for verticals."""
    return MapFlag("vertical", "blouses:tops,t-shirts:tops,umbrellas:")


class HoldOutFlags:
    """Which training groups are held out, and by what they are groups.

    Args:
      splits: those to hold out for, of val and test.
      column: the default of the column whose values are the groups.
      usual: whether the default is `USUAL_VAL_FRACTION` where there is no such split, else 0.
    """

    def __init__(self, splits: Sequence[str], column: str, *, usual: bool = False) -> None:
        self._fractions = {
            split: define_number(
                f"{split}_fraction",
                None if usual else 0.0,
                f"share of the training groups of each vertical to hold out as {split}; 0 is none"
                + (f"; by default {USUAL_VAL_FRACTION:g} where no row is of split val" * usual),
                0.0,
                _MOST_HELD_OUT,
            )
            for split in splits
        }
        self._by = flags.DEFINE_string(
            "split_by",
            column,
            "column whose values are the groups that stay together, e.g. style_id where an item is "
            "one colour of a style",
        )
        self._seed = define_seed("the choice of held-out groups", "split_seed")

    def fraction(self, split: str) -> float:
        """Returns the share of the groups to hold out for a split; None for the usual one."""
        return self._fractions[split].value

    @property
    def by(self) -> str:
        """Column whose values are the groups."""
        return self._by.value

    @property
    def seed(self) -> int:
        """Seed of the choice."""
        return self._seed.value


class PictureFlags:
    """How a single picture is prepared."""

    def __init__(self) -> None:
        default = PictureSettings()
        self._numbers = {
            name: define_number(name, getattr(default, name), what, low, high)
            for name, what, low, high in (
                (
                    "max_side",
                    "longest side of a prepared picture in pixels; smaller ones are not enlarged",
                    1,
                    8192,
                ),
                (
                    "crop_margin",
                    "kept around the box on each side, as a fraction of the box's side",
                    0,
                    10,
                ),
                ("jpeg_quality", "JPEG quality of prepared pictures", 1, 100),
                (
                    "max_pixels",
                    "pictures of more pixels are rejected before they are decoded",
                    1,
                    LARGEST_MAX_PIXELS,
                ),
            )
        }

    def settings(self) -> PictureSettings:
        """Returns how to prepare a picture."""
        return PictureSettings(**{name: flag.value for name, flag in self._numbers.items()})


class PrepareFlags:
    """How the pictures of a manifest are prepared."""

    def __init__(self) -> None:
        default = PrepareConfig(manifest="", output="")
        self._hold_out = HoldOutFlags(["val"], default.val_group_column, usual=True)
        self._map_verticals = map_verticals_flag()
        self._picture = PictureFlags()
        self._shard_records = define_number(
            "shard_records", default.shard_records, "rows of the manifest per shard", 1, 1_000_000
        )

    def config(self, manifest: Path, output: Path) -> PrepareConfig:
        """Returns what to prepare."""
        return PrepareConfig(
            manifest=manifest,
            output=output,
            val_fraction=self._hold_out.fraction("val"),
            val_group_column=self._hold_out.by,
            seed=self._hold_out.seed,
            shard_records=self._shard_records.value,
            map_verticals=self._map_verticals.value,
            **dataclasses.asdict(self._picture.settings()),
        )
