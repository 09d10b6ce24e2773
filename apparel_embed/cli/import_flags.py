"""Flags of imports, and the configuration made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from apparel_embed.cli.data_flags import HoldOutFlags, MapFlag, map_verticals_flag
from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.deepfashion_in_shop import InShopOptions
from apparel_embed.data.importers.derive import ERROR, SKIP, DeriveOptions
from apparel_embed.data.importers.folders import FoldersOptions
from apparel_embed.data.importers.importing import ImportConfig
from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.data.importers.splitting import SplitOptions
from apparel_embed.data.importers.street2shop import Street2ShopOptions
from apparel_embed.data.importers.table import TableOptions
from apparel_embed.data.verticals import parse_pairs


class ImportFlags:
    """What to import, and how."""

    def __init__(self) -> None:
        layouts = "; ".join(f"{name}: {layout.layout}" for name, layout in FORMATS.items())
        self._format = flags.DEFINE_enum(
            "format", None, list(FORMATS), f"how the dataset is laid out ({layouts})", required=True
        )
        self._root = flags.DEFINE_string(
            "root",
            None,
            "directory that holds the dataset; paths of images are relative to it, also those that "
            "begin with / and are not absolute paths of files",
            required=True,
        )
        self._output = flags.DEFINE_string(
            "output", None, "manifest to write, .csv or .parquet", required=True
        )
        self._layout = _LayoutFlags(self._format)
        self._derive = _DeriveFlags()
        self._check = _CheckFlags()
        self._split = HoldOutFlags(["val", "test"], SplitOptions().by)

    @property
    def output(self) -> Path:
        """The manifest to write."""
        return Path(self._output.value)

    def config(self) -> ImportConfig:
        """Returns what to import.

        Raises:
          UserError: flags contradict each other.
        """
        return ImportConfig(
            format=self._format.value,
            root=Path(self._root.value),
            output=self.output,
            options=self._layout.options(),
            derive=self._derive.options(),
            split=SplitOptions(
                val_fraction=self._split.fraction("val"),
                test_fraction=self._split.fraction("test"),
                by=self._split.by,
                seed=self._split.seed,
            ),
            **self._derive.mappings(),
            **self._check.values(),
        )


class _LayoutFlags:
    """What single layouts are told."""

    def __init__(self, layout: flags.FlagHolder[str]) -> None:
        self._format = layout
        self._table = flags.DEFINE_string(
            "table",
            None,
            "--format=table: CSV, TSV, JSON lines (.jsonl), Parquet or Excel (.xlsx) file with a "
            "row per picture; without, the pictures below --root are the rows, with the column "
            "image alone",
        )
        self._vertical = flags.DEFINE_string(
            "vertical",
            None,
            "--format=folders and table: the vertical of all rows; folders are then items",
        )
        self._encoding = flags.DEFINE_string(
            "encoding",
            TableOptions().encoding,
            "--format=table: encoding of a --table that is text, such as cp1252 or utf-16",
        )
        self._images = flags.DEFINE_string(
            "image_dir",
            None,
            "--format=deepfashion_in_shop and street2shop: directory of the pictures below --root, "
            "by default img (the other is img_highres) and images",
        )
        self._separate_genders = flags.DEFINE_bool(
            "separate_genders",
            True,
            "--format=deepfashion_in_shop: whether clothes of men and women are verticals apart",
        )
        # The layouts that each flag is for.
        self._meant_for = {
            "table": ("table",),
            "vertical": ("folders", "table"),
            "encoding": ("table",),
            "image_dir": ("deepfashion_in_shop", "street2shop"),
            "separate_genders": ("deepfashion_in_shop",),
        }

    def options(self) -> Any:
        """Returns the options of the chosen layout; None if it has none.

        Raises:
          UserError: a flag of another layout was given.
        """
        name = self._format.value
        for flag, layouts in self._meant_for.items():
            if name not in layouts and flags.FLAGS[flag].present:
                raise UserError(
                    f"--{flag} is not allowed with --format={name}; it is for {', '.join(layouts)}"
                )
        if self._vertical.value is not None and not self._vertical.value.strip():
            raise UserError("--vertical= is not allowed; name the vertical of all rows")
        if name == "folders":
            return FoldersOptions(self._vertical.value)
        if name == "table":
            table = self._table.value
            return TableOptions(
                None if table is None else Path(table), self._vertical.value, self._encoding.value
            )
        images = {} if self._images.value is None else {"images": self._images.value}
        if name == "deepfashion_in_shop":
            return InShopOptions(separate_genders=self._separate_genders.value, **images)
        if name == "street2shop":
            return Street2ShopOptions(**images)
        return None


class _DeriveFlags:
    """What columns are made of, and other names of values."""

    def __init__(self) -> None:
        default = DeriveOptions()
        self._pattern = flags.DEFINE_string(
            "pattern",
            default.pattern,
            "regular expression (RE2) searched in each picture's path below --root or URL; every "
            "named group, such as (?P<item_id>...), becomes a column",
        )
        self._pattern_column = flags.DEFINE_string(
            "pattern_column", default.pattern_column, "column that --pattern searches instead"
        )
        self._unmatched = flags.DEFINE_enum(
            "unmatched",
            default.unmatched,
            [ERROR, SKIP],
            "what becomes of rows that --pattern does not match",
        )
        self._columns = flags.DEFINE_list(
            "columns",
            [],
            "comma-separated names of columns and what they are made of: image:photo_url renames a "
            "column, item_id:{style}-{colour} joins several, note: leaves one out",
        )
        self._separator = flags.DEFINE_string(
            "image_separator",
            default.image_separator,
            "what separates several images in a cell, such as |; each becomes a row",
        )
        self._maps = [
            map_verticals_flag(),
            MapFlag("role", "front:gallery,worn:query,swatch:"),
            MapFlag("split", "training:train,validation:val"),
        ]

    def options(self) -> DeriveOptions:
        """Returns what columns are made of."""
        return DeriveOptions(
            pattern=self._pattern.value,
            pattern_column=self._pattern_column.value,
            unmatched=self._unmatched.value,
            columns=parse_pairs(
                "columns",
                self._columns.value,
                allowed="each is name:column, name:template, or name: to leave that column out",
                what="column",
            ),
            image_separator=self._separator.value,
        )

    def mappings(self) -> dict[str, Any]:
        """Returns other names of verticals, roles and splits."""
        return {f"{flag.column}s": flag.value for flag in self._maps}


class _CheckFlags:
    """What is an error."""

    def __init__(self) -> None:
        skipping = ", ".join(name for name, layout in FORMATS.items() if layout.missing == SKIP)
        self._missing = flags.DEFINE_enum(
            "missing",
            None,
            [ERROR, SKIP],
            "what becomes of rows whose picture is missing; by default an error"
            + (f", but skip for {skipping}" if skipping else ""),
        )
        self._duplicates = flags.DEFINE_enum(
            "duplicates",
            ERROR,
            [ERROR, SKIP],
            "what becomes of rows with a picture, box and item that an earlier row has",
        )
        self._check_boxes = flags.DEFINE_bool(
            "check_boxes",
            True,
            "compare boxes with the sizes of their pictures, which is to read the head of each; a "
            "box may reach out by 1 pixel",
        )
        self._strict = flags.DEFINE_bool(
            "strict", False, "make it an error if counts differ from the published ones"
        )

    def values(self) -> dict[str, Any]:
        """Returns the settings by their names in `ImportConfig`."""
        return {
            "missing": self._missing.value,
            "duplicates": self._duplicates.value,
            "check_boxes": self._check_boxes.value,
            "strict": self._strict.value,
        }
