"""What a layout of datasets is: its settings, and how a directory becomes rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apparel_embed.common.settings import setting
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.text_tables import UTF8

ERROR, SKIP = "error", "skip"
"""What becomes of rows that something is wrong with."""


@dataclasses.dataclass(frozen=True)
class LayoutOptions:
    """Settings that only some layouts use.

    A layout with settings of its own has a subclass in its file.
    """

    table: Path | None = setting(
        None,
        "--format=table: CSV (comma, semicolon or tab), TSV, JSON lines (.jsonl), Parquet or Excel "
        "(.xlsx) file with a row per image; without it, each image below --root is a row whose "
        "only column is image",
    )
    vertical: str | None = setting(
        None, "--format=folders and table: the vertical of all rows; folders are then items"
    )
    encoding: str = setting(
        UTF8,
        "--format=table: encoding of a text --table, such as cp1252 (Excel on Windows) or "
        "utf-16; a byte order mark is accepted",
    )
    image_dir: str | None = setting(
        None,
        "--format=deepfashion_in_shop and street2shop: directory of the images below --root, by "
        "default img (the other is img_highres) and images",
    )
    separate_genders: bool = setting(
        True,
        "--format=deepfashion_in_shop: whether clothes of men and women are separate verticals",
    )


@dataclasses.dataclass(frozen=True)
class Format:
    """A layout of datasets.

    Attributes:
      convert: returns the rows found below a root, or raises a UserError that names file and row.
      layout: what is where below the root, in a few words.
      published: counts that were published with the dataset, by the names that `convert` gives.
      missing: what becomes of rows without an image unless the user says: "error" or "skip".
      options: `LayoutOptions`, or the subclass with the layout's own settings, which become flags.
    """

    convert: Callable[[Path, Any], Rows]
    layout: str
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: str = ERROR
    options: type[LayoutOptions] = LayoutOptions
