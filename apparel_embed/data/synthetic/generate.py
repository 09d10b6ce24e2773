"""Writes the synthetic dataset: images, manifest, world description and contact sheet."""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union

import pyarrow as pa
from absl import logging
from PIL import Image, ImageDraw, ImageFont

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json, write_json
from apparel_embed.common.locks import only_writer
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.image_pool import run_tasks
from apparel_embed.data.manifest import BOX_COLUMNS, UNLABELLED
from apparel_embed.data.synthetic.scene import GALLERY, QUERY, draw_image
from apparel_embed.data.synthetic.street import (
    Layout,
    Scene,
    lay_out,
    scene_image,
    scenes_of,
)
from apparel_embed.data.synthetic.world import CUES, Item, SyntheticConfig, items_of

MANIFEST = "manifest.csv"
_WORLD = "world.json"
_SHEET = "contact_sheet.png"
_SCENE_SHEET = "scenes.png"
_COLUMNS = ("image", "item_id", "vertical", "split", "role", "cue")

# Increased whenever the same settings give different images than before.
_WORLD_VERSION = 1

# The contact sheet: sizes in pixels of an image, the vertical names, gaps and the heading; the
# number of items per vertical, and of images per item.
_CELL, _LABEL, _GAP, _HEAD = 64, 92, 8, 18
_SHEET_ITEMS, _SHEET_IMAGES = 4, 5

# The scene sheet: side of a scene in pixels, scenes per line, and their total number.
_SCENE_CELL, _SCENE_COLUMNS, _SHEET_SCENES = 256, 4, 12

# Texts, and numbers for a box.
_Row = tuple[Union[str, int, None], ...]


@dataclasses.dataclass(frozen=True)
class SyntheticResult:
    """A generated dataset on disk.

    Attributes:
      manifest: path of the manifest.
      contact_sheet: path of the contact sheet.
      scene_sheet: path of the sheet of scenes; None without scenes.
      world: path of the description of the world.
      images: number of images.
      skipped: True if the dataset existed already, with the same settings.
    """

    manifest: Path
    contact_sheet: Path
    scene_sheet: Path | None
    world: Path
    images: int
    skipped: bool


def generate(config: SyntheticConfig, output: Path, processes: int = 1) -> SyntheticResult:
    """Draws the dataset into `output`, which appears only once it is complete.

    Args:
      config: what to draw.
      output: directory to create; if it contains the same dataset already, nothing is drawn.
      processes: number of processes, at least 1; does not change the bytes.

    Raises:
      UserError: `output` has other content or cannot be written, or `processes` < 1.
    """
    output = Path(output)
    if processes < 1:
        raise UserError(f"processes={processes}: expected at least 1")
    skipped = find_drawn(config, output)
    if not skipped:
        try:
            with only_writer(output):
                _write_whole(config, output, processes)
        except OSError as error:
            raise UserError(f"output {output}: cannot be written: {error.strerror}") from error
    return SyntheticResult(
        manifest=output / MANIFEST,
        contact_sheet=output / _SHEET,
        scene_sheet=output / _SCENE_SHEET if config.scenes else None,
        world=output / _WORLD,
        images=config.images,
        skipped=skipped,
    )


def find_drawn(config: SyntheticConfig, output: Path) -> bool:
    """Returns whether `output` contains this dataset.

    Raises:
      UserError: `output` has other content.
    """
    if not output.exists():
        return False
    if not output.is_dir():
        raise UserError(f"output {output}: is a file; choose a directory that does not exist yet")
    if not any(output.iterdir()):
        return False
    try:
        found = read_json(output / _WORLD)
    except (OSError, ValueError):
        raise UserError(
            f"output {output}: exists but is not a synthetic dataset; "
            "choose a directory that does not exist yet"
        ) from None
    wanted = _world_json(config)
    if found != wanted:
        raise UserError(
            f"output {output}: has a dataset with other settings ({_difference(found, wanted)}); "
            "choose another directory, or delete this one"
        )
    return True


def manifest_table(config: SyntheticConfig) -> pa.Table:
    """Returns the rows of the manifest that `generate` would write, without drawing images."""
    items = _all_items(config)
    rows = [row for item in items for row in _item_rows(config, item)]
    for scene in scenes_of(config, items):
        rows += _scene_rows(scene, lay_out(config, scene))
    columns = zip(_columns(config), zip(*rows))
    kinds = {name: pa.float64() for name in BOX_COLUMNS}
    return pa.table({name: pa.array(row, kinds.get(name, pa.string())) for name, row in columns})


def _world_json(config: SyntheticConfig) -> dict[str, Any]:
    """Returns the content of `world.json`: version, settings, and the cue of each vertical."""
    return {
        "version": _WORLD_VERSION,
        "settings": config.to_json(),
        "cues": {vertical: CUES[vertical] for vertical in config.verticals},
    }


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """Returns a description of the first setting that differs."""
    settings = found.get("settings") if isinstance(found, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    # Settings of images that are not drawn are not stored.
    defaults = {field.name: field.default for field in dataclasses.fields(SyntheticConfig)}
    for name in [*wanted["settings"], *settings]:
        old, new = (s.get(name, defaults.get(name)) for s in (settings, wanted["settings"]))
        if old != new:
            return f"{name} is {old!r}, requested {new!r}"
    return "written by another version"


def _all_items(config: SyntheticConfig) -> list[Item]:
    return [item for vertical in config.verticals for item in items_of(config, vertical)]


def _image_names(config: SyntheticConfig, item: Item) -> Iterator[tuple[str, str, int]]:
    """Yields path relative to the manifest, role and number of each image of `item`."""
    for role, count in ((GALLERY, config.gallery_per_item), (QUERY, config.query_per_item)):
        for number in range(count):
            yield f"images/{item.vertical}/{item.item_id}_{role}{number}.jpg", role, number


def _columns(config: SyntheticConfig) -> tuple[str, ...]:
    return _COLUMNS + BOX_COLUMNS if config.scenes else _COLUMNS


def _item_rows(config: SyntheticConfig, item: Item) -> list[_Row]:
    """Returns the manifest rows of an item: one per image, without scenes."""
    item_id = "" if item.split == UNLABELLED else item.item_id
    of_item = (item_id, item.vertical, item.split)
    no_box = (None,) * len(BOX_COLUMNS) if config.scenes else ()
    return [
        (name, *of_item, role, CUES[item.vertical], *no_box)
        for name, role, _ in _image_names(config, item)
    ]


def _scene_rows(scene: Scene, layout: Layout) -> list[_Row]:
    """Returns the manifest rows of a scene: one per garment."""
    rows = zip((garment.item for garment in layout.garments), layout.boxes)
    return [
        (scene.name, item.item_id, item.vertical, item.split, QUERY, CUES[item.vertical], *box)
        for item, box in rows
    ]


def _write_whole(config: SyntheticConfig, output: Path, processes: int) -> None:
    """Writes to a temporary directory and renames it, so that `output` is never incomplete."""
    aside = output.with_name(f".{output.name}.aside")
    # A killed process may have left one.
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        _write(config, aside, processes)
        os.replace(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(config: SyntheticConfig, root: Path, processes: int) -> None:
    for folder in (*config.verticals, *(["scenes"] if config.scenes else [])):
        (root / "images" / folder).mkdir(parents=True)
    items = _all_items(config)
    tasks = [*items, *scenes_of(config, items)]
    logging.info("drawing %d images", config.images)
    drawn = run_tasks(
        functools.partial(_draw, config, root),
        tasks,
        min(processes, len(tasks)),
        threads=processes == 1,
        if_killed="run the same command again with fewer --processes",
    )
    rows = list(progress_bar(drawn, total=config.images, what="drawing", unit="images"))
    with open(root / MANIFEST, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_columns(config))
        writer.writerows(row for rows_of_image in rows for row in rows_of_image)
    groups: dict[str, list[list[Path]]] = {vertical: [] for vertical in config.verticals}
    for item in items:
        # The sheet shows items; unlabelled images have none.
        if item.split != UNLABELLED:
            groups[item.vertical].append([root / name for name, _, _ in _image_names(config, item)])
    contact_sheet(groups).save(root / _SHEET, optimize=True)
    if config.scenes:
        _scene_sheet(root, rows[-sum(config.scenes_of_splits.values()) :]).save(
            root / _SCENE_SHEET, optimize=True
        )
    write_json(root / _WORLD, _world_json(config))


def _draw(config: SyntheticConfig, root: Path, task: Item | Scene) -> list[list[_Row]]:
    """Draws and writes a scene or all images of an item; returns the rows of each image."""
    if isinstance(task, Scene):
        layout = lay_out(config, task)
        (root / task.name).write_bytes(scene_image(config, task, layout))
        return [_scene_rows(task, layout)]
    for name, role, number in _image_names(config, task):
        content = draw_image(config.seed, task, role, number, config.image_size)
        (root / name).write_bytes(content)
    return [[row] for row in _item_rows(config, task)]


def _scene_sheet(root: Path, scenes: Sequence[Sequence[_Row]]) -> Image.Image:
    """Returns a sheet of some scenes with the boxes of their garments.

    Args:
      root: the manifest's directory.
      scenes: the rows of each scene.
    """
    scenes = scenes[:_SHEET_SCENES]
    columns = min(_SCENE_COLUMNS, len(scenes))
    size = (columns * _SCENE_CELL, -(-len(scenes) // columns) * _SCENE_CELL)
    sheet, font = Image.new("RGB", size, "white"), ImageFont.load_default(size=11)
    for number, rows in enumerate(scenes):
        with Image.open(root / str(rows[0][0])) as image:
            cell = image.resize((_SCENE_CELL, _SCENE_CELL), Image.Resampling.BOX)
            scale = _SCENE_CELL / image.width
        pen = ImageDraw.Draw(cell)
        for row in rows:
            left, top, right, bottom = (float(edge or 0) * scale for edge in row[-4:])
            pen.rectangle((left, top, right - 1, bottom - 1), outline="red")
            pen.text(
                (left + 3, top + 1), str(row[2]), "black", font, stroke_width=1, stroke_fill="white"
            )
        line, column = divmod(number, columns)
        sheet.paste(cell, (column * _SCENE_CELL, line * _SCENE_CELL))
    return sheet.quantize(256, dither=Image.Dither.NONE)


def contact_sheet(rows: Mapping[str, Sequence[Sequence[Path]]]) -> Image.Image:
    """Returns a sheet of some items of each vertical, one line per vertical.

    Args:
      rows: the items of each vertical, as lists of image paths, gallery first.
    """
    items = min(_SHEET_ITEMS, max(len(group) for group in rows.values()))
    images = min(_SHEET_IMAGES, max(len(item) for group in rows.values() for item in group))
    step = images * _CELL + _GAP
    sheet = Image.new("RGB", (_LABEL + items * step, _HEAD + len(rows) * (_CELL + 2)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    pen.text(
        (4, 3), "one item per block: shop images (gallery), then street (query)", "black", font
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
