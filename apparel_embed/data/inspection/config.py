"""The settings of an inspection."""

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
        True, "open the images; --noopen_images reads only the table", flag="open_images"
    )
    sample: int = setting(
        0, "number of random images to open, in addition to those shown; 0 opens all", 0, 2**31
    )
    seed: int = seed_setting("the sample and the items on contact sheets")
    crop_margin: float = same_as(ImageSettings, "crop_margin", "; as in prepare_dataset")
    max_pixels: int = setting(
        100_000_000,
        "images with more pixels count as unusable; as in prepare_dataset",
        1,
        LARGEST_MAX_PIXELS,
        rare=True,
    )
    # 477 photographs of garments were saved again (JPEG at quality 60 and 30, WebP at 60) and at
    # half and a third of their size: 99.5 % of these copies are within both distances. Of 1.4
    # million pairs of different photographs, two are too: garments sold in two colours, but
    # shown with one photograph. 145 more, of one garment in two colours, have the same outlines.
    hash_distance: int = setting(
        10,
        "maximum number of differing bits, of 256, in the perceptual hashes of copies; higher "
        "values find copies that were changed more, and take longer",
        0,
        32,
    )
    colour_distance: int = setting(
        4,
        "maximum difference in colour, in levels of 255, between the parts (8 x 8) of copies; "
        "images that differ more are reported as recoloured",
        0,
        255,
    )
    min_side: int = setting(
        64, "a cropped image whose longer side has fewer pixels is reported as small", 1, 8192
    )
    min_images: int = setting(
        2,
        "training items with fewer images count as not usable for triplets; as in train_specialist",
        1,
        1000,
    )
    # With fewer, the search for groups weights the evidence of the group above the vertical's own.
    min_val_items: int = setting(
        20,
        "a vertical with fewer validation items is reported as too small for search_groups at its "
        "default tolerance",
        0,
        1_000_000,
    )
    sheet_items: int = setting(
        8, "number of items on the contact sheet of a vertical; 0 for no sheets", 0, 20
    )

    def __post_init__(self) -> None:
        check_settings(self)
