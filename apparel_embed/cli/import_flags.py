"""Flags of imports, and the configuration made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apparel_embed.cli.data_flags import MapFlag, map_verticals_flag
from apparel_embed.cli.define import DATA, ConfigFlags, define
from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.deepfashion_in_shop import InShopOptions
from apparel_embed.data.importers.derive import ERROR, SKIP, DeriveOptions
from apparel_embed.data.importers.folders import FoldersOptions
from apparel_embed.data.importers.importing import ImportConfig
from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.data.importers.splitting import SplitOptions
from apparel_embed.data.importers.street2shop import Street2ShopOptions
from apparel_embed.data.importers.table import TableOptions
from apparel_embed.data.pairs import parse_pairs


class ImportFlags:
    """What to import, and how."""

    def __init__(self) -> None:
        layouts = "; ".join(f"{name}: {layout.layout}" for name, layout in FORMATS.items())
        self._format = define(
            "format",
            None,
            f"how the dataset is laid out ({layouts})",
            choices=FORMATS,
            required=True,
        )
        self._root = define(
            "root",
            None,
            "directory that holds the dataset; paths of images are relative to it, also those that "
            "begin with / and are not absolute paths of files",
            required=True,
        )
        self._output = define("output", None, "manifest to write, .csv or .parquet", required=True)
        self._layout = _LayoutFlags()
        self._derive = ConfigFlags(DeriveOptions)
        self._columns = define(
            "columns",
            (),
            "comma-separated names of columns and what they are made of: image:photo_url renames a "
            "column, item_id:{style}-{colour} joins several, note: leaves one out",
        )
        self._maps = {
            "verticals": map_verticals_flag(),
            "roles": MapFlag("role", "front:gallery,worn:query,swatch:"),
            "splits": MapFlag("split", "training:train,validation:val"),
        }
        skipping = ", ".join(name for name, layout in FORMATS.items() if layout.missing == SKIP)
        self._missing = define(
            "missing",
            None,
            "what becomes of rows whose picture is missing; by default an error"
            + (f", but skip for {skipping}" if skipping else ""),
            choices=(ERROR, SKIP),
        )
        self._import = ConfigFlags(ImportConfig)
        self._split = ConfigFlags(SplitOptions, DATA)

    @property
    def output(self) -> Path:
        """The manifest to write."""
        return Path(self._output.value)

    def config(self) -> ImportConfig:
        """Returns what to import.

        Raises:
          UserError: flags contradict each other.
        """
        columns = parse_pairs(
            "columns",
            self._columns.value,
            allowed="each is name:column, name:template, or name: to leave that column out",
            what="column",
        )
        return self._import.config(
            format=self._format.value,
            root=Path(self._root.value),
            output=self.output,
            options=self._layout.options(self._format.value),
            derive=self._derive.config(columns=columns),
            split=self._split.config(),
            missing=self._missing.value,
            **{name: flag.value for name, flag in self._maps.items()},
        )


class _LayoutFlags:
    """What single layouts are told."""

    def __init__(self) -> None:
        self._table = define(
            "table",
            None,
            "--format=table: CSV, TSV, JSON lines (.jsonl), Parquet or Excel (.xlsx) file with a "
            "row per picture; without, the pictures below --root are the rows, with the column "
            "image alone",
        )
        self._vertical = define(
            "vertical",
            None,
            "--format=folders and table: the vertical of all rows; folders are then items",
        )
        self._encoding = define(
            "encoding",
            TableOptions().encoding,
            "--format=table: encoding of a --table that is text, such as cp1252 or utf-16",
        )
        self._images = define(
            "image_dir",
            None,
            "--format=deepfashion_in_shop and street2shop: directory of the pictures below --root, "
            "by default img (the other is img_highres) and images",
        )
        self._separate_genders = define(
            "separate_genders",
            InShopOptions().separate_genders,
            "--format=deepfashion_in_shop: whether clothes of men and women are verticals apart",
        )

    def options(self, layout: str) -> Any:
        """Returns the options of a layout; None if it has none.

        Raises:
          UserError: a flag of another layout was given.
        """
        for flag, layouts in (
            (self._table, ("table",)),
            (self._vertical, ("folders", "table")),
            (self._encoding, ("table",)),
            (self._images, ("deepfashion_in_shop", "street2shop")),
            (self._separate_genders, ("deepfashion_in_shop",)),
        ):
            if flag.present and layout not in layouts:
                raise UserError(
                    f"--{flag.name} is not allowed with --format={layout}; it is for "
                    f"{', '.join(layouts)}"
                )
        vertical, table = self._vertical.value, self._table.value
        if vertical is not None and not vertical.strip():
            raise UserError("--vertical= is not allowed; name the vertical of all rows")
        images = {} if self._images.value is None else {"images": self._images.value}
        if layout == "folders":
            return FoldersOptions(vertical)
        if layout == "table":
            return TableOptions(
                None if table is None else Path(table), vertical, self._encoding.value
            )
        if layout == "deepfashion_in_shop":
            return InShopOptions(separate_genders=self._separate_genders.value, **images)
        return Street2ShopOptions(**images) if layout == "street2shop" else None
