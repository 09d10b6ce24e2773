"""Flags of imports, and the configuration built from them."""

from __future__ import annotations

from pathlib import Path

from apparel_embed.cli.data_flags import MapFlag, map_verticals_flag
from apparel_embed.cli.define import DATA, ConfigFlags, VariantFlags, define
from apparel_embed.common.errors import UserError
from apparel_embed.data.importers.derive import DeriveOptions
from apparel_embed.data.importers.importing import ImportConfig
from apparel_embed.data.importers.layout import ERROR, SKIP, LayoutOptions
from apparel_embed.data.importers.registry import FORMATS
from apparel_embed.data.importers.splitting import SplitOptions
from apparel_embed.data.verticals import parse_pairs

# The layouts that each field of `LayoutOptions` applies to.
_MEANT_FOR = {
    "table": ("table",),
    "vertical": ("folders", "table"),
    "encoding": ("table",),
    "image_dir": ("deepfashion_in_shop", "street2shop"),
    "separate_genders": ("deepfashion_in_shop",),
}


class ImportFlags:
    """Flags for what to import, and how."""

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
            "directory that contains the dataset; image paths are relative to it, including those "
            "that begin with / unless a file exists at that absolute path",
            required=True,
        )
        self._output = define("output", None, "manifest to write, .csv or .parquet", required=True)
        options = {name: layout.options for name, layout in FORMATS.items()}
        self._layout = VariantFlags("format", LayoutOptions, options)
        self._derive = ConfigFlags(DeriveOptions)
        self._columns = define(
            "columns",
            (),
            "comma-separated columns of the manifest and their sources: image:photo_url renames a "
            "column, item_id:{style}-{colour} joins several, note: drops one",
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
            "what to do with rows whose image is missing; by default an error"
            + (f", except skip for {skipping}" if skipping else ""),
            choices=(ERROR, SKIP),
        )
        self._import = ConfigFlags(ImportConfig)
        self._split = ConfigFlags(SplitOptions, DATA)

    @property
    def output(self) -> Path:
        """The manifest to write."""
        return Path(self._output.value)

    def config(self) -> ImportConfig:
        """Returns the configuration of the import.

        Raises:
          UserError: flags contradict each other.
        """
        columns = parse_pairs(
            "columns",
            self._columns.value,
            allowed="expected name:column, name:template, or name: to drop that column",
            what="column",
        )
        return self._import.config(
            format=self._format.value,
            root=Path(self._root.value),
            output=self.output,
            options=self._layout_options(),
            derive=self._derive.config(columns=columns),
            split=self._split.config(),
            missing=self._missing.value,
            **{name: flag.value for name, flag in self._maps.items()},
        )

    def _layout_options(self) -> LayoutOptions:
        layout = self._format.value
        options = self._layout.config(layout)
        for name, layouts in _MEANT_FOR.items():
            if self._layout.shared.is_given(name) and layout not in layouts:
                raise UserError(
                    f"--{name} does not apply to --format={layout}; it is for {', '.join(layouts)}"
                )
        if options.vertical is not None and not options.vertical.strip():
            raise UserError("--vertical is empty; expected the vertical of all rows")
        return options
