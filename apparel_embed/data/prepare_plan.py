"""What a prepared dataset is made from."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_files
from apparel_embed.data.picture_pool import image_path
from apparel_embed.data.pictures import LARGEST_MAX_PIXELS, RejectedPicture
from apparel_embed.data.prepared import SCHEMA_VERSION

USUAL_VAL_FRACTION = 0.15


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and how.

    Attributes:
      manifest: CSV or Parquet file, see `read_manifest`.
      output: directory to make.
      max_side: longest side of a prepared image in pixels, 1 to 8192.
      crop_margin: added on each side of a box, as a fraction of the box's side, 0 to 10.
      jpeg_quality: 1 to 100.
      max_pixels: larger images are rejected undecoded, 1 to 178956970.
      val_fraction: share of the training groups to hold out as `val`, in [0, 1); 0 for none; None
        for `USUAL_VAL_FRACTION` where the manifest has no row of split val, else none.
      val_group_column: groups to hold out are the distinct values of this column.
      seed: of the choice of the held-out groups, at least 0.
      shard_records: rows of the manifest per shard, at least 1.
      map_verticals: other names for verticals of the manifest, see `map_verticals`.

    Example:
      >>> PrepareConfig("data/manifest.csv", "data/prepared", val_fraction=0.1).max_side
      256
    """

    manifest: str | os.PathLike[str]
    output: str | os.PathLike[str]
    max_side: int = 256
    crop_margin: float = 0.1
    jpeg_quality: int = 92
    max_pixels: int = 100_000_000
    val_fraction: float | None = 0.0
    val_group_column: str = "item_id"
    seed: int = 0
    shard_records: int = 4096
    map_verticals: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises a UserError if a number is out of range."""
        for name, low, high in (
            ("max_side", 1, 8192),
            ("crop_margin", 0, 10),
            ("jpeg_quality", 1, 100),
            ("max_pixels", 1, LARGEST_MAX_PIXELS),
            ("seed", 0, 2**32 - 1),
            ("shard_records", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"--{name}={value} is not allowed; it must be in [{low}, {high}]")
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise UserError(
                f"--val_fraction={self.val_fraction} is not allowed; it must be in [0, 1)"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """The values on which the result depends, beside manifest and pictures."""
        values = dataclasses.asdict(self)
        del values["manifest"], values["output"]
        return values


def make_plan(config: PrepareConfig, table: pa.Table) -> dict[str, Any]:
    """Returns all that decides what the dataset will contain, as JSON."""
    directory = Path(config.manifest).parent
    sizes = np.empty(table.num_rows, "<i8")
    # Chunk by chunk: of millions of paths Python's strings take several times as much.
    images = itertools.chain.from_iterable(
        chunk.to_pylist() for chunk in table["image"].iterchunks()
    )
    for row, image in enumerate(images):
        try:
            sizes[row] = os.stat(image_path(image, directory)).st_size
        except (OSError, ValueError, RejectedPicture):
            sizes[row] = -1
    return {
        "schema_version": SCHEMA_VERSION,
        "settings": config.settings,
        "manifest_sha256": fingerprint_files([Path(config.manifest)]),
        # The sizes alone: to read every picture once more would take as long as the work itself.
        "picture_sizes_sha256": hashlib.sha256(sizes.tobytes()).hexdigest(),
    }
