"""Flags of the inspection of a dataset, and the configuration made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from apparel_embed.cli.define import define_number, define_seed
from apparel_embed.common.settings import setting_of
from apparel_embed.data.inspection.config import InspectConfig


class InspectFlags:
    """What to inspect, and how strictly."""

    def __init__(self) -> None:
        default = InspectConfig(manifest="")
        self._pictures = flags.DEFINE_bool(
            "open_pictures",
            default.pictures,
            "whether to open pictures; --noopen_pictures reads the table",
        )
        self._numbers = {
            "seed": define_seed(
                "the sample and of the items on contact sheets", default=default.seed
            )
        }
        for name, what in (
            ("sample", "pictures to open, drawn at random, beside those shown; 0 opens all"),
            (
                "crop_margin",
                "kept around the box on each side, as a fraction of the box's side; as in "
                "prepare_dataset",
            ),
            ("max_pixels", "pictures of more pixels count as unusable; as in prepare_dataset"),
            (
                "hash_distance",
                "bits, of 256, in which perceptual hashes may differ where outlines are the same; "
                "higher finds pictures that were changed more, and takes longer",
            ),
            (
                "colour_distance",
                "levels, of 255, by which no part of a picture may differ in colour from its copy; "
                "what differs more is reported as the same but for its colour",
            ),
            ("min_side", "a picture, cropped, whose longer side has fewer pixels is small"),
            (
                "min_pictures",
                "training items with fewer pictures are counted as making no triplets; as in "
                "train_specialist",
            ),
            (
                "min_val_items",
                "a vertical with fewer validation items is reported as too small for search_groups "
                "at its default tolerance and confidence",
            ),
            ("sheet_items", "items on the contact sheet of a vertical; 0 draws no sheets"),
        ):
            field: Any = setting_of(InspectConfig.__dataclass_fields__[name])
            self._numbers[name] = define_number(
                name, getattr(default, name), what, field.low, field.high
            )

    def config(self, manifest: Path) -> InspectConfig:
        """Returns what to inspect."""
        numbers = {name: flag.value for name, flag in self._numbers.items()}
        return InspectConfig(manifest=manifest, pictures=self._pictures.value, **numbers)
