"""Flags for preparing and splitting images."""

from __future__ import annotations

from pathlib import Path

from apparel_embed.cli.define import DATA, ConfigFlags, define
from apparel_embed.data.prepare_plan import PHOTOGRAPH_SIDE, PrepareConfig
from apparel_embed.data.synthetic.world import SyntheticConfig
from apparel_embed.data.verticals import parse_mapping


class MapFlag:
    """New names for the values of a column.

    Args:
      column: the column's name, in the singular.
      example: example entries for the help text.
    """

    def __init__(self, column: str, example: str) -> None:
        self._column = column
        self._entries = define(
            f"map_{column}s",
            (),
            f"comma-separated new names of {column}s, each old:new, e.g. {example}; {column}s with "
            f"the same new name are merged, and old: drops the rows with that {column}",
            group=DATA,
        )

    @property
    def value(self) -> dict[str, str]:
        """New names, keyed by old names.

        Raises:
          UserError: an entry is invalid.
        """
        return parse_mapping(self._entries.value, self._column)


def map_verticals_flag() -> MapFlag:
    """Returns the flag for new names of verticals."""
    return MapFlag("vertical", "blouses:tops,t-shirts:tops,umbrellas:")


def synthetic_flags() -> ConfigFlags[SyntheticConfig]:
    """Returns the flags of synthetic garments."""
    return ConfigFlags(SyntheticConfig, "Synthetic garments", prefix="synthetic_")


class PrepareFlags:
    """Flags for preparing the images of a manifest.

    Args:
      photographs: whether to define --photographs, which prepares whole photographs.
    """

    def __init__(self, *, photographs: bool = False) -> None:
        without = () if photographs else ("photographs",)
        # With None, the fraction depends on the manifest.
        self._config = ConfigFlags(
            PrepareConfig, DATA, defaults={"val_fraction": None}, without=without
        )
        self._map_verticals = map_verticals_flag()

    def config(self, manifest: Path, output: Path) -> PrepareConfig:
        """Returns the configuration for preparing `manifest` into `output`."""
        whole = self._config.values().get("photographs", False)
        usual = whole and not self._config.is_given("max_side")
        sides = {"max_side": PHOTOGRAPH_SIDE} if usual else {}
        return self._config.config(
            manifest=manifest, output=output, map_verticals=self._map_verticals.value, **sides
        )
