"""Miniature shops: folders of images, and images whose file names contain their labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from apparel_embed.data.importers.derive import DeriveOptions
from apparel_embed.data.importers.importing import ImportConfig
from apparel_embed.data.importers.splitting import SplitOptions

LUMA_PATTERN = (
    r"(?P<style_id>(?P<kind>[a-z]+)\d+)-(?P<colour>[a-z]+)_(?P<view>[a-z]+\d*)\.(?i:jpg)$"
)
LUMA_COLUMNS = {"item_id": "{style_id}-{colour}", "vertical": "kind", "role": "{view}"}
LUMA_VERTICALS = {"mh": "hoodies", "wh": "hoodies", "msh": "shorts", "ms": "tees"}
LUMA_ROLES = {"main": "gallery", "alt1": "query", "back": "query"}


def draw(root: Path, names: Iterable[str], size: tuple[int, int] = (8, 6)) -> None:
    """Writes images of `size` (width, height), in the format of their extension."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "teal").save(path)


def make_luma(root: Path, styles: int = 3) -> list[str]:
    """Creates a shop with `styles` styles of each kind in two colours; returns the image names.

    The first colour has three views (main, back, alt1), the other only the main view.
    """
    names = [
        f"images/{kind}{style:02}-{colour}_{view}.jpg"
        for kind in LUMA_VERTICALS
        for style in range(1, styles + 1)
        for colour, views in (("gray", ("main", "back", "alt1")), ("red", ("main",)))
        for view in views
    ]
    draw(root, names)
    return names


def luma_config(root: Path, output: Path) -> ImportConfig:
    """Returns the settings to import that shop, with whole styles held out."""
    return ImportConfig(
        "table",
        root,
        output,
        derive=DeriveOptions(pattern=LUMA_PATTERN, columns=LUMA_COLUMNS),
        verticals=LUMA_VERTICALS,
        roles=LUMA_ROLES,
        split=SplitOptions(test_fraction=0.3, by="style_id"),
    )
