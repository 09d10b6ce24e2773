"""What to inspect, and how strictly."""

from __future__ import annotations

import dataclasses
import os

from apparel_embed.common.settings import check_settings, same_as, seed_setting, setting
from apparel_embed.data.images import LARGEST_MAX_PIXELS, ImageSettings


@dataclasses.dataclass(frozen=True)
class InspectConfig:
    """What to inspect, and how strictly.

    Attributes:
      manifest: CSV or Parquet file, see `read_manifest`.

    Raises:
      UserError: a number is out of range.
    """

    manifest: str | os.PathLike[str]
    images: bool = setting(
        True, "whether to open images; --noopen_images reads only the table", flag="open_images"
    )
    sample: int = setting(
        0, "number of images to open, drawn at random, besides those shown; 0 opens all", 0, 2**31
    )
    seed: int = seed_setting("the sample and of the items on contact sheets")
    crop_margin: float = same_as(ImageSettings, "crop_margin", "; as in prepare_dataset")
    max_pixels: int = setting(
        100_000_000,
        "images of more pixels count as unusable; as in prepare_dataset",
        1,
        LARGEST_MAX_PIXELS,
        seldom=True,
    )
    # 477 photographs of garments were saved again (JPEG of quality 60 and 30, WebP of 60) and at a
    # half and a third of their size: 99.5 % of these copies are within both distances. Of 1.4
    # million pairs of different photographs two are, of garments that a shop sells in two colours
    # and shows by one photograph; 145 more, of one garment in two colours, have the same outlines.
    hash_distance: int = setting(
        10,
        "bits, of 256, in which perceptual hashes may differ where outlines are the same; higher "
        "finds images that were changed more, and takes longer",
        0,
        32,
    )
    colour_distance: int = setting(
        4,
        "levels, of 255, by which no part of an image (of 8 x 8) may differ in colour from its "
        "copy; what differs more is reported as the same but for its colour",
        0,
        255,
    )
    min_side: int = setting(
        64, "an image, cropped, whose longer side has fewer pixels is small", 1, 8192
    )
    min_images: int = setting(
        2,
        "training items with fewer images are counted as making no triplets; as in "
        "train_specialist",
        1,
        1000,
    )
    # On fewer, the search for groups trusts what a vertical's group shows more than the vertical.
    min_val_items: int = setting(
        20,
        "a vertical with fewer validation items is reported as too small for search_groups at its "
        "default tolerance and confidence",
        0,
        1_000_000,
    )
    sheet_items: int = setting(
        8, "items on the contact sheet of a vertical; 0 draws no sheets", 0, 20
    )

    def __post_init__(self) -> None:
        check_settings(self)
