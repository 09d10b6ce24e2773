"""Defines a dataset layout: its settings, and how a directory becomes rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from apparel_embed.common.settings import setting
from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.text_tables import UTF8

ERROR, SKIP = "error", "skip"
"""What to do with faulty rows."""


@dataclasses.dataclass(frozen=True)
class LayoutOptions:
    """Settings that only some layouts use; a layout can add its own in a subclass."""

    table: Path | None = setting(
        None,
        "--format=table: CSV (comma, semicolon or tab), TSV, JSON lines (.jsonl), Parquet or Excel "
        "(.xlsx) file with a row per image; without it, each image below --root becomes a row "
        "with the single column image",
    )
    vertical: str | None = setting(
        None, "--format=folders or table: the vertical of all rows; folders are then items"
    )
    encoding: str = setting(
        UTF8,
        "--format=table: encoding of a text --table, such as cp1252 (Excel on Windows) or "
        "utf-16; a byte order mark is accepted",
    )
    image_dir: str | None = setting(
        None,
        "image directory below --root; --format=deepfashion_in_shop: img (default) or "
        "img_highres; --format=street2shop: any, by default images",
    )
    separate_genders: bool = setting(
        True,
        "--format=deepfashion_in_shop: put men's and women's clothes in separate verticals",
    )


@dataclasses.dataclass(frozen=True)
class Format:
    """A dataset layout.

    Attributes:
      convert: returns the rows found below a root, or raises a UserError that names file and row.
      layout: the files expected below the root, in a few words.
      published: the counts published with the dataset, under the names that `convert` uses.
      missing: the default for rows whose image is missing, "error" or "skip".
      options: `LayoutOptions`, or a subclass with the layout's own settings, which become flags.
    """

    convert: Callable[[Path, Any], Rows]
    layout: str
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: str = ERROR
    options: type[LayoutOptions] = LayoutOptions
