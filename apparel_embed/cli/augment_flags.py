"""Flags of augmentation."""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.define import define_number
from apparel_embed.data.augment import AugmentConfig


class AugmentFlags:
    """How pictures are augmented."""

    def __init__(self) -> None:
        default = AugmentConfig()
        self._flags: dict[str, flags.FlagHolder] = {
            "flip": flags.DEFINE_bool("augment_flip", default.flip, "mirror half of the pictures")
        }
        for name, what, upper in (
            ("rotation", "largest angle either way, in degrees", 180.0),
            ("zoom", "largest change of size either way, as a fraction of the side", 0.9),
            ("translation", "largest shift either way, as a fraction of the side", 0.9),
            ("brightness", "largest change either way, as a fraction of the value range", 1.0),
            ("contrast", "largest relative change either way", 1.0),
            ("saturation", "largest change either way, 1 from grey to full", 1.0),
            ("hue", "largest turn either way, 1 is half the colour circle", 1.0),
            ("erase", "largest side of an erased rectangle, as a fraction of the side", 1.0),
        ):
            self._flags[name] = define_number(
                f"augment_{name}", getattr(default, name), f"{what}; 0 is off", 0.0, upper
            )

    def config(self) -> AugmentConfig:
        """Returns the configuration of augmentation."""
        return AugmentConfig(**{name: flag.value for name, flag in self._flags.items()})
