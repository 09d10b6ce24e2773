"""Configuration of a prepared dataset, and the plan that identifies its contents."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from absl import logging

from apparel_embed.common.files import fingerprint_files
from apparel_embed.common.settings import check_settings, same_as, seed_setting, setting
from apparel_embed.common.text import counted
from apparel_embed.data.image_pool import image_path
from apparel_embed.data.images import ImageSettings, RejectedImage
from apparel_embed.data.prepared import DATASET_FILE, SCHEMA_VERSION

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

USUAL_VAL_FRACTION = 0.15
PHOTOGRAPH_SIDE = 640
"""Usual longest side of whole photographs, in pixels: their garments are small."""


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """Configuration of `prepare`.

    Attributes:
      manifest: CSV or Parquet file, see `read_manifest`.
      output: directory to create.
      val_fraction: share of the groups to hold out; None for `USUAL_VAL_FRACTION` if the manifest
        has no val rows, and 0 if it has.
      map_verticals: new names of verticals of the manifest, see `map_verticals`.

    Examples:
      >>> PrepareConfig("data/manifest.csv", "data/prepared", val_fraction=0.1).max_side
      256
    """

    manifest: str | os.PathLike[str]
    output: str | os.PathLike[str]
    max_side: int = same_as(ImageSettings, "max_side")
    crop_margin: float = same_as(ImageSettings, "crop_margin")
    jpeg_quality: int = same_as(ImageSettings, "jpeg_quality")
    max_pixels: int = same_as(ImageSettings, "max_pixels")
    val_fraction: float | None = setting(
        0.0,
        "share of the training groups of each vertical to hold out as val; 0 is none; by default "
        f"{USUAL_VAL_FRACTION:g} if the manifest has no split val",
        0.0,
        0.9,
    )
    val_group_column: str = setting(
        "item_id",
        "column whose values are the groups that stay together, e.g. style_id if an item is one "
        "colour of a style",
        flag="split_by",
    )
    seed: int = seed_setting("the choice of held-out groups", flag="split_seed", rare=True)
    shard_records: int = setting(4096, "rows of the manifest per shard", 1, 1_000_000, rare=True)
    map_verticals: Mapping[str, str] = dataclasses.field(default_factory=dict)
    photographs: bool = setting(
        False,
        "prepare each image with boxes once, as a whole with all its boxes, for the detector",
        rare=True,
    )

    def __post_init__(self) -> None:
        """Raises a UserError if a number is out of range."""
        check_settings(self)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the result, together with manifest and images."""
        values = dataclasses.asdict(self)
        del values["manifest"], values["output"]
        # Datasets prepared before this setting existed do not have it.
        if not self.photographs:
            del values["photographs"]
        return values


def make_plan(config: PrepareConfig, table: pa.Table) -> dict[str, Any]:
    """Returns everything that determines the contents of the dataset, as JSON values."""
    # Sizes only: reading all images again would take as long as preparing them.
    sizes = hashlib.sha256()
    made = Path(config.output) / DATASET_FILE
    newer = hash_sizes(sizes, table, Path(config.manifest).parent, made)
    if newer:
        logging.warning(
            "%s: %s modified after it was prepared, but only sizes were compared; if the contents "
            "have changed, remove the dataset and prepare it again",
            config.output,
            counted(newer, "image was", "images were"),
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": config.settings,
        "manifest_sha256": fingerprint_files([Path(config.manifest)]),
        "image_sizes_sha256": sizes.hexdigest(),
    }


def hash_sizes(total: Hash, table: pa.Table, directory: Path, made: Path | None) -> int:
    """Adds the sizes of a table's local images to a hash; -1 stands for a missing or remote one.

    Args:
      total: the hash.
      table: column `image`.
      directory: directory that paths of images are relative to.
      made: a file that was written when the images were last read, if there is one.

    Returns:
      The number of images that were modified after that.
    """
    since = made.stat().st_mtime if made and made.is_file() else math.inf
    newer = 0
    # Chunk by chunk: millions of paths take several times the memory as Python strings.
    for chunk in table["image"].iterchunks():
        sizes = np.full(len(chunk), -1, "<i8")
        for row, image in enumerate(chunk.to_pylist()):
            with contextlib.suppress(OSError, ValueError, RejectedImage):
                status = os.stat(image_path(image, directory))
                sizes[row] = status.st_size
                newer += status.st_mtime > since
        total.update(sizes.tobytes())
    return newer
