"""What to inspect, and how strictly."""

from __future__ import annotations

import dataclasses
import os

from apparel_embed.common.errors import UserError
from apparel_embed.data.pictures import LARGEST_MAX_PIXELS

LIMITS = {
    "sample": (0, 2**31),
    "seed": (0, 2**31),
    "crop_margin": (0, 10),
    "max_pixels": (1, LARGEST_MAX_PIXELS),
    "hash_distance": (0, 32),
    "colour_distance": (0, 255),
    "min_side": (1, 8192),
    "min_pictures": (1, 1000),
    "min_val_items": (0, 1_000_000),
    "sheet_items": (0, 20),
}


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    """What to inspect, and how strictly.

    Attributes:
      manifest: CSV or Parquet file, see `read_manifest`.
      pictures: whether to open the pictures; else only the table is looked at.
      sample: how many pictures to open, drawn at random; 0 for all. Those of the contact sheets
        are opened in any case.
      seed: of the sample and of the items on the contact sheets.
      crop_margin: added on each side of a box, as a fraction of the box's side, as in prepare.
      max_pixels: larger pictures count as unusable, as in prepare.
      hash_distance: pictures whose perceptual hashes differ in at most so many of 256 bits have
        the same outlines.
      colour_distance: pictures of the same outlines show the same if no part of them (of 8 x 8)
        differs by more in any colour, 0 to 255; else they are alike but for colour.
      min_side: a picture, cropped to its box, whose longer side has fewer pixels is small.
      min_pictures: training items with fewer pictures make no triplets, as in training.
      min_val_items: a vertical with fewer validation items is too small to judge groups by.
      sheet_items: items on the contact sheet of a vertical, 0 for no sheets.

    Raises:
      UserError: a number is out of range.
    """

    manifest: str | os.PathLike[str]
    pictures: bool = True
    sample: int = 0
    seed: int = 0
    crop_margin: float = 0.1
    max_pixels: int = 100_000_000
    # 477 photographs of garments were saved anew (JPEG of quality 60 and 30, WebP of 60) and at a
    # half and a third of their size: 99.5 % of these copies are within both distances. Of 1.4
    # million pairs of different photographs two are, of garments that a shop sells in two colours
    # and shows by one photograph; 145 more, of one garment in two colours, have the same outlines.
    hash_distance: int = 10
    colour_distance: int = 4
    min_side: int = 64
    min_pictures: int = 2
    # On fewer, the search for groups trusts what a vertical's group shows more than the vertical.
    min_val_items: int = 20
    sheet_items: int = 8

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"--{name}={value} is not allowed; it must be in [{low}, {high}]")
