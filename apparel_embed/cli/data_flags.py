"""Flags of synthetic garments and of prepare, and the configurations made from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from apparel_embed.data.pictures import LARGEST_MAX_PIXELS, PictureSettings
from apparel_embed.data.prepare import PrepareConfig
from apparel_embed.data.synthetic.world import CUES, LIMITS, SyntheticConfig
from apparel_embed.data.verticals import parse_mapping


class ProcessesFlag:
    """How many processes work on pictures."""

    def __init__(self) -> None:
        self._processes = flags.DEFINE_integer(
            "processes",
            0,
            "processes that work on pictures, 0 for one per core (0 to 256); makes no difference "
            "to the result",
            lower_bound=0,
            upper_bound=256,
        )

    @property
    def value(self) -> int:
        """Number of processes."""
        return self._processes.value or os.cpu_count() or 1


class SyntheticFlags:
    """What synthetic garments to draw."""

    def __init__(self) -> None:
        default = SyntheticConfig()
        self._verticals = flags.DEFINE_list(
            "synthetic_verticals",
            list(default.verticals),
            f"comma-separated verticals to draw, out of {', '.join(CUES)}",
        )
        self._counts = {}
        for name, what in (
            ("seed", "seed of everything drawn"),
            ("train_items", "items per vertical in split train"),
            ("val_items", "items per vertical in split val"),
            ("test_items", "items per vertical in split test"),
            ("unlabelled_items", "items per vertical in split unlabelled, without item_id"),
            ("gallery_per_item", "shop pictures per item"),
            ("query_per_item", "street pictures per item"),
            ("image_size", "side of the drawn pictures in pixels"),
        ):
            low, high = LIMITS[name]
            self._counts[name] = flags.DEFINE_integer(
                f"synthetic_{name}",
                getattr(default, name),
                f"{what} ({low} to {high})",
                lower_bound=low,
                upper_bound=high,
            )

    def config(self) -> SyntheticConfig:
        """Returns what to draw."""
        counts = {name: flag.value for name, flag in self._counts.items()}
        return SyntheticConfig(verticals=tuple(self._verticals.value), **counts)


class MapVerticalsFlag:
    """Other names for verticals."""

    def __init__(self) -> None:
        self._entries = flags.DEFINE_list(
            "map_verticals",
            [],
            "comma-separated verticals that get another name, each old:new; those that get the "
            "same are merged, and old: without a new name leaves that vertical's rows out",
        )

    @property
    def value(self) -> dict[str, str]:
        """New names by old ones.

        Raises:
          UserError: an entry that is not allowed.
        """
        return parse_mapping(self._entries.value)


class PictureFlags:
    """How a single picture is prepared."""

    def __init__(self) -> None:
        default = PictureSettings()
        self._numbers = {}
        for name, define, what, low, high in (
            (
                "max_side",
                flags.DEFINE_integer,
                "longest side of a prepared picture in pixels; smaller ones are not enlarged",
                1,
                8192,
            ),
            (
                "crop_margin",
                flags.DEFINE_float,
                "kept around the box on each side, as a fraction of the box's side",
                0,
                10,
            ),
            ("jpeg_quality", flags.DEFINE_integer, "JPEG quality of prepared pictures", 1, 100),
            (
                "max_pixels",
                flags.DEFINE_integer,
                "pictures of more pixels are rejected before they are decoded",
                1,
                LARGEST_MAX_PIXELS,
            ),
        ):
            self._numbers[name] = define(
                name,
                getattr(default, name),
                f"{what} ({low} to {high})",
                lower_bound=low,
                upper_bound=high,
            )

    def settings(self) -> PictureSettings:
        """Returns how to prepare a picture."""
        return PictureSettings(**{name: flag.value for name, flag in self._numbers.items()})


class PrepareFlags:
    """How the pictures of a manifest are prepared."""

    def __init__(self) -> None:
        default = PrepareConfig(manifest="", output="")
        self._picture = PictureFlags()
        self._numbers: dict[str, flags.FlagHolder] = {}
        numbers: tuple[tuple[str, Callable[..., flags.FlagHolder], str, float, float], ...] = (
            (
                "val_fraction",
                flags.DEFINE_float,
                "share of the training groups of each vertical to hold out as val; 0 is none",
                0,
                0.9,
            ),
            ("val_seed", flags.DEFINE_integer, "seed of the choice of held-out groups", 0, 2**31),
            ("shard_records", flags.DEFINE_integer, "rows of the manifest per shard", 1, 1_000_000),
        )
        for name, define, what, low, high in numbers:
            field = "seed" if name == "val_seed" else name
            self._numbers[field] = define(
                name,
                getattr(default, field),
                f"{what} ({low} to {high})",
                lower_bound=low,
                upper_bound=high,
            )
        self._val_group_column = flags.DEFINE_string(
            "val_group_column",
            default.val_group_column,
            "column of the manifest whose values are the groups that --val_fraction holds out",
        )
        self._map_verticals = MapVerticalsFlag()

    def config(self, manifest: Path, output: Path) -> PrepareConfig:
        """Returns what to prepare."""
        numbers: dict[str, Any] = {name: flag.value for name, flag in self._numbers.items()}
        return PrepareConfig(
            manifest=manifest,
            output=output,
            val_group_column=self._val_group_column.value,
            map_verticals=self._map_verticals.value,
            **dataclasses.asdict(self._picture.settings()),
            **numbers,
        )
