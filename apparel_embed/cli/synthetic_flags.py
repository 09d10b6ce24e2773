"""Flags of synthetic garments."""

from __future__ import annotations

from typing import Any

from absl import flags

from apparel_embed.cli.define import define_number, define_seed
from apparel_embed.common.settings import setting_of
from apparel_embed.data.synthetic.world import CUES, SyntheticConfig


class SyntheticFlags:
    """What synthetic garments to draw."""

    def __init__(self) -> None:
        default = SyntheticConfig()
        self._verticals = flags.DEFINE_list(
            "synthetic_verticals",
            list(default.verticals),
            f"comma-separated verticals to draw, out of {', '.join(CUES)}",
        )
        self._numbers = {"seed": define_seed("everything drawn", "synthetic_seed", default.seed)}
        for name, what in (
            ("train_items", "items per vertical in split train"),
            ("val_items", "items per vertical in split val"),
            ("test_items", "items per vertical in split test"),
            ("unlabelled_items", "items per vertical in split unlabelled, without item_id"),
            ("gallery_per_item", "shop pictures per item"),
            ("query_per_item", "street pictures per item"),
            ("image_size", "side of the drawn pictures in pixels"),
        ):
            field: Any = setting_of(SyntheticConfig.__dataclass_fields__[name])
            self._numbers[name] = define_number(
                f"synthetic_{name}", getattr(default, name), what, field.low, field.high
            )

    def config(self) -> SyntheticConfig:
        """Returns what to draw."""
        numbers = {name: flag.value for name, flag in self._numbers.items()}
        return SyntheticConfig(verticals=tuple(self._verticals.value), **numbers)
