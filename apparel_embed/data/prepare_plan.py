"""What a prepared dataset is made from, and whether a directory was made from the same."""

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
from apparel_embed.common.files import fingerprint_files, read_json
from apparel_embed.common.settings import check_settings, same_as, seed_setting, setting
from apparel_embed.data.picture_pool import image_path
from apparel_embed.data.pictures import PictureSettings, RejectedPicture
from apparel_embed.data.prepared import SCHEMA_VERSION

USUAL_VAL_FRACTION = 0.15


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and how.

    Attributes:
      manifest: CSV or Parquet file, see `read_manifest`.
      output: directory to make.
      val_fraction: None for `USUAL_VAL_FRACTION` where the manifest has no row of split val, else
        none.
      map_verticals: other names for verticals of the manifest, see `map_verticals`.

    Example:
      >>> PrepareConfig("data/manifest.csv", "data/prepared", val_fraction=0.1).max_side
      256
    """

    manifest: str | os.PathLike[str]
    output: str | os.PathLike[str]
    max_side: int = same_as(PictureSettings, "max_side")
    crop_margin: float = same_as(PictureSettings, "crop_margin")
    jpeg_quality: int = same_as(PictureSettings, "jpeg_quality")
    max_pixels: int = same_as(PictureSettings, "max_pixels")
    val_fraction: float | None = setting(
        0.0,
        "share of the training groups of each vertical to hold out as val; 0 is none; by default "
        f"{USUAL_VAL_FRACTION:g} where no row is of split val",
        0.0,
        0.9,
    )
    val_group_column: str = setting(
        "item_id",
        "column whose values are the groups that stay together, e.g. style_id where an item is "
        "one colour of a style",
        flag="split_by",
    )
    seed: int = seed_setting("the choice of held-out groups", flag="split_seed", seldom=True)
    shard_records: int = setting(4096, "rows of the manifest per shard", 1, 1_000_000, seldom=True)
    map_verticals: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises a UserError if a number is out of range."""
        check_settings(self)

    @property
    def settings(self) -> dict[str, Any]:
        """The values on which the result depends, beside manifest and pictures."""
        values = dataclasses.asdict(self)
        del values["manifest"], values["output"]
        if not values["map_verticals"]:
            # Without other names a dataset is the one that was prepared before there was a choice.
            del values["map_verticals"]
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


def check_same(directory: Path, there: dict[str, Any], plan: dict[str, Any]) -> None:
    """Raises a UserError that names what differs between a directory and the plan."""
    differences = []
    if there.get("schema_version") != plan["schema_version"]:
        differences.append(
            f"schema_version is {there.get('schema_version')} there, {plan['schema_version']} now"
        )
    old, new = there.get("settings", {}), plan["settings"]
    differences += [
        f"{name} is {old.get(name)} there, {new.get(name)} now"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if there.get("manifest_sha256") != plan["manifest_sha256"]:
        differences.append("the manifest is another")
    elif there.get("picture_sizes_sha256") != plan["picture_sizes_sha256"]:
        differences.append("picture files have changed")
    if differences:
        raise UserError(
            f"{directory} was made from something else: {'; '.join(differences)}; "
            "give another --output or remove it"
        )


def read_plan(path: Path) -> dict[str, Any]:
    """Returns the plan in plan.json or dataset.json; an empty one if it cannot be read."""
    try:
        value = read_json(path)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
