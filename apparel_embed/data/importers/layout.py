"""What a layout of datasets is: its settings, and how a directory becomes rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from apparel_embed.data.importers.rows import Rows
from apparel_embed.data.text_tables import UTF8

ERROR, SKIP = "error", "skip"
"""What becomes of rows that something is wrong with."""


@dataclasses.dataclass(frozen=True)
class LayoutOptions:
    """Settings that only some layouts use.

    Attributes:
      table: layout table: the file; None for a table of the images below the root.
      vertical: layouts table and folders: the vertical of all rows; None where the data tell.
      encoding: layout table: of a table that is text.
      image_dir: directory of the images below the root; None for the layout's own. Layout
        deepfashion_in_shop: `img`, 256 pixels wide and high, or `img_highres`; street2shop: any.
      separate_genders: layout deepfashion_in_shop: whether clothes of men and women are verticals
        apart, `men_shorts` and `women_shorts`, or one, `shorts`.
    """

    table: Path | None = None
    vertical: str | None = None
    encoding: str = UTF8
    image_dir: str | None = None
    separate_genders: bool = True


@dataclasses.dataclass(frozen=True)
class Format:
    """A layout of datasets.

    Attributes:
      convert: returns the rows found below a root, or raises a UserError that names file and row.
      layout: what is where below the root, in a few words.
      published: counts that were published with the dataset, by the names that `convert` gives.
      missing: what becomes of rows without an image unless the user says: "error" or "skip".
    """

    convert: Callable[[Path, LayoutOptions], Rows]
    layout: str
    published: Mapping[str, int] = dataclasses.field(default_factory=dict)
    missing: str = ERROR
