"""Writes the synthetic dataset: images, manifest, world description and contact sheet."""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json, write_json
from apparel_embed.common.locks import only_writer
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.picture_pool import run_tasks
from apparel_embed.data.synthetic.scene import GALLERY, QUERY, picture
from apparel_embed.data.synthetic.world import CUES, Item, SyntheticConfig, items_of

MANIFEST = "manifest.csv"
_WORLD = "world.json"
_SHEET = "contact_sheet.png"
_COLUMNS = ("image", "item_id", "vertical", "split", "role", "cue")

# Raised whenever the same settings give other images than before.
_WORLD_VERSION = 1

# The contact sheet, in pixels: an image, the names of verticals, gaps and the first line; and how
# many items it shows, and images of each.
_CELL, _LABEL, _GAP, _HEAD = 64, 92, 8, 18
_SHEET_ITEMS, _SHEET_IMAGES = 4, 5


@dataclasses.dataclass(frozen=True)
class SyntheticResult:
    """What `generate` left behind.

    Attributes:
      manifest: path of the manifest.
      contact_sheet: path of the contact sheet.
      world: path of the description of the world.
      pictures: number of rows in the manifest.
      skipped: True if the dataset was there already, made with the same settings.
    """

    manifest: Path
    contact_sheet: Path
    world: Path
    pictures: int
    skipped: bool


def generate(config: SyntheticConfig, output: Path, processes: int = 1) -> SyntheticResult:
    """Draws the dataset into `output`, which appears when it is whole.

    Args:
      config: what to draw.
      output: directory to make; if it holds the same dataset already, nothing is drawn.
      processes: number of processes, at least 1; makes no difference to the bytes.

    Raises:
      UserError: if `output` holds something else or cannot be written, or `processes` < 1.
    """
    output = Path(output)
    if processes < 1:
        raise UserError(f"processes={processes}: must be at least 1")
    skipped = find_drawn(config, output)
    if not skipped:
        try:
            with only_writer(output):
                _write_whole(config, output, processes)
        except OSError as error:
            raise UserError(f"output {output}: cannot be written: {error.strerror}") from error
    return SyntheticResult(
        output / MANIFEST, output / _SHEET, output / _WORLD, config.pictures, skipped
    )


def find_drawn(config: SyntheticConfig, output: Path) -> bool:
    """Returns whether `output` holds this dataset.

    Raises:
      UserError: if it holds something else.
    """
    if not output.exists():
        return False
    if not output.is_dir():
        raise UserError(f"output {output}: is a file; name a directory that does not exist yet")
    if not any(output.iterdir()):
        return False
    try:
        found = read_json(output / _WORLD)
    except (OSError, ValueError):
        raise UserError(
            f"output {output}: exists and holds no synthetic dataset; "
            "name a directory that does not exist yet"
        ) from None
    wanted = _world_json(config)
    if found != wanted:
        raise UserError(
            f"output {output}: holds a dataset with other settings ({_difference(found, wanted)}); "
            "name another directory, or delete this one"
        )
    return True


def manifest_table(config: SyntheticConfig) -> pa.Table:
    """Returns the rows of the manifest that `generate` would write; nothing is drawn."""
    columns = zip(*_manifest_rows(config, _all_items(config)))
    return pa.table({name: pa.array(cells, pa.string()) for name, cells in zip(_COLUMNS, columns)})


def _world_json(config: SyntheticConfig) -> dict[str, Any]:
    """Returns the content of `world.json`: version, settings, and the cue of each vertical."""
    return {
        "version": _WORLD_VERSION,
        "settings": config.to_json(),
        "cues": {vertical: CUES[vertical] for vertical in config.verticals},
    }


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """Returns the first setting that differs, as "name there, here"."""
    settings = found.get("settings") if isinstance(found, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    for name, value in wanted["settings"].items():
        if settings.get(name) != value:
            return f"{name} is {settings.get(name)!r} there, {value!r} asked for"
    return "written by another version"


def _all_items(config: SyntheticConfig) -> list[Item]:
    return [item for vertical in config.verticals for item in items_of(config, vertical)]


def _image_names(config: SyntheticConfig, item: Item) -> Iterator[tuple[str, str, int]]:
    """Yields path relative to the manifest, role and number of every image of `item`."""
    for role, count in ((GALLERY, config.gallery_per_item), (QUERY, config.query_per_item)):
        for number in range(count):
            yield f"images/{item.vertical}/{item.item_id}_{role}{number}.jpg", role, number


def _manifest_rows(config: SyntheticConfig, items: Iterable[Item]) -> Iterator[tuple[str, ...]]:
    for item in items:
        item_id = "" if item.split == UNLABELLED else item.item_id
        for name, role, _ in _image_names(config, item):
            yield (name, item_id, item.vertical, item.split, role, CUES[item.vertical])


def _write_whole(config: SyntheticConfig, output: Path, processes: int) -> None:
    """Writes aside and renames, so that `output` is never half a dataset."""
    aside = output.with_name(f".{output.name}.aside")
    # What a process that was killed has left.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        _write(config, aside, processes)
        os.replace(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(config: SyntheticConfig, root: Path, processes: int) -> None:
    for vertical in config.verticals:
        (root / "images" / vertical).mkdir(parents=True)
    items = _all_items(config)
    logging.info("drawing %d images", config.pictures)
    drawn = run_tasks(
        functools.partial(_draw_item, config, root),
        items,
        min(processes, len(items)),
        threads=processes == 1,
        if_killed="run the same command again with fewer --processes",
    )
    for _ in progress_bar(drawn, total=config.pictures, what="drawing", unit="images"):
        pass
    with open(root / MANIFEST, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(_manifest_rows(config, items))
    rows: dict[str, list[list[Path]]] = {vertical: [] for vertical in config.verticals}
    for item in items:
        # The sheet shows items, and what is unlabelled tells of none.
        if item.split != UNLABELLED:
            rows[item.vertical].append([root / name for name, _, _ in _image_names(config, item)])
    contact_sheet(rows).save(root / _SHEET, optimize=True)
    write_json(root / _WORLD, _world_json(config))


def _draw_item(config: SyntheticConfig, root: Path, item: Item) -> list[str]:
    """Draws and writes all images of an item; returns their names."""
    names = list(_image_names(config, item))
    for name, role, number in names:
        content = picture(config.seed, item, role, number, config.image_size)
        (root / name).write_bytes(content)
    return [name for name, _, _ in names]


def contact_sheet(rows: Mapping[str, Sequence[Sequence[Path]]]) -> Image.Image:
    """Returns an image that shows some items of every vertical, a row each.

    Args:
      rows: for every vertical its items, for every item the paths of its images, gallery first.
    """
    items = min(_SHEET_ITEMS, max(len(group) for group in rows.values()))
    images = min(_SHEET_IMAGES, max(len(item) for group in rows.values() for item in group))
    step = images * _CELL + _GAP
    sheet = Image.new("RGB", (_LABEL + items * step, _HEAD + len(rows) * (_CELL + 2)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    pen.text(
        (4, 3), "one item per block: shop pictures (gallery), then street (query)", "black", font
    )
    for line, (vertical, group) in enumerate(rows.items()):
        top = _HEAD + line * (_CELL + 2)
        pen.text((4, top + 14), vertical, "black", font)
        pen.text((4, top + 30), f"same {CUES[vertical]}", "grey", font)
        for block, item in enumerate(group[:items]):
            for place, path in enumerate(item[:images]):
                with Image.open(path) as image:
                    small = image.resize((_CELL, _CELL), Image.Resampling.BOX)
                sheet.paste(small, (_LABEL + block * step + place * _CELL, top))
    # 256 colours keep the file below a megabyte.
    return sheet.quantize(256, dither=Image.Dither.NONE)
