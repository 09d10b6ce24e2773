"""Writes the synthetic dataset: pictures, manifest, world description and contact sheet."""

from __future__ import annotations

import csv
import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json, write_json
from apparel_embed.common.locks import only_writer
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.picture_pool import start_worker
from apparel_embed.data.synthetic.contact_sheet import contact_sheet
from apparel_embed.data.synthetic.scene import GALLERY, QUERY, picture
from apparel_embed.data.synthetic.world import CUES, UNLABELLED, Item, SyntheticConfig, items_of

MANIFEST = "manifest.csv"
WORLD = "world.json"
SHEET = "contact_sheet.png"
COLUMNS = ("image", "item_id", "vertical", "split", "role", "cue")

# Raised whenever the same settings give other pictures than before.
_WORLD_VERSION = 1


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


@dataclasses.dataclass(frozen=True)
class _Job:
    """All pictures of one item, drawn and written by one process."""

    config: SyntheticConfig
    item: Item
    root: Path


def world_json(config: SyntheticConfig) -> dict[str, Any]:
    """Returns the content of `world.json`: version, settings, and the cue of each vertical."""
    return {
        "version": _WORLD_VERSION,
        "settings": config.to_json(),
        "cues": {vertical: CUES[vertical] for vertical in config.verticals},
    }


def image_names(config: SyntheticConfig, item: Item) -> Iterator[tuple[str, str, int]]:
    """Yields path relative to the manifest, role and number of every picture of `item`."""
    for role, count in ((GALLERY, config.gallery_per_item), (QUERY, config.query_per_item)):
        for number in range(count):
            yield f"images/{item.vertical}/{item.item_id}_{role}{number}.jpg", role, number


def _draw_item(job: _Job) -> int:
    count = 0
    for name, role, number in image_names(job.config, job.item):
        content = picture(job.config.seed, job.item, role, number, job.config.image_size)
        (job.root / name).write_bytes(content)
        count += 1
    return count


def _draw_all(jobs: list[_Job], processes: int, total: int) -> None:
    logging.info("drawing %d images", total)
    with progress_bar(total=total, what="drawing", unit="pictures") as bar:
        if processes == 1:
            for job in jobs:
                bar.update(_draw_item(job))
            return
        # Spawned, not forked: the caller may have TensorFlow's threads running.
        with multiprocessing.get_context("spawn").Pool(processes, start_worker) as pool:
            for count in pool.imap_unordered(_draw_item, jobs, chunksize=4):
                bar.update(count)


def _manifest_rows(config: SyntheticConfig, items: Sequence[Item]) -> Iterator[tuple[str, ...]]:
    for item in items:
        item_id = "" if item.split == UNLABELLED else item.item_id
        for name, role, _ in image_names(config, item):
            yield (name, item_id, item.vertical, item.split, role, CUES[item.vertical])


def _write_manifest(path: Path, config: SyntheticConfig, items: Sequence[Item]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_manifest_rows(config, items))


def manifest_table(config: SyntheticConfig) -> pa.Table:
    """Returns the rows of the manifest that `generate` would write; nothing is drawn."""
    items = [item for vertical in config.verticals for item in items_of(config, vertical)]
    columns = zip(*_manifest_rows(config, items))
    return pa.table({name: pa.array(c, pa.string()) for name, c in zip(COLUMNS, columns)})


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
        found = read_json(output / WORLD)
    except (OSError, ValueError):
        raise UserError(
            f"output {output}: exists and holds no synthetic dataset; "
            "name a directory that does not exist yet"
        ) from None
    wanted = world_json(config)
    if found != wanted:
        raise UserError(
            f"output {output}: holds a dataset with other settings ({_difference(found, wanted)}); "
            "name another directory, or delete this one"
        )
    return True


def _difference(found: Any, wanted: dict[str, Any]) -> str:
    """Returns the first setting that differs, as "name there, here"."""
    settings = found.get("settings") if isinstance(found, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    for name, value in wanted["settings"].items():
        if settings.get(name) != value:
            return f"{name} is {settings.get(name)!r} there, {value!r} asked for"
    return "written by another version"


def generate(config: SyntheticConfig, output: Path, processes: int = 1) -> SyntheticResult:
    """Draws the dataset into `output`, which appears when it is whole.

    Args:
      config: what to draw.
      output: directory to make; if it holds the same dataset already, nothing is drawn.
      processes: number of processes, at least 1; makes no difference to the bytes.

    Returns:
      Where everything is.

    Raises:
      UserError: if `output` holds something else or cannot be written, or `processes` < 1.
    """
    output = Path(output)
    if processes < 1:
        raise UserError(f"processes={processes}: must be at least 1")
    skipped = find_drawn(config, output)
    if not skipped:
        try:
            _write_whole(config, output, processes)
        except OSError as error:
            raise UserError(f"output {output}: cannot be written: {error.strerror}") from error
    return SyntheticResult(
        manifest=output / MANIFEST,
        contact_sheet=output / SHEET,
        world=output / WORLD,
        pictures=config.pictures,
        skipped=skipped,
    )


def _write_whole(config: SyntheticConfig, output: Path, processes: int) -> None:
    """Writes aside and renames, so that `output` is never half a dataset."""
    with only_writer(output):
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
    items = {vertical: items_of(config, vertical) for vertical in config.verticals}
    for vertical in config.verticals:
        (root / "images" / vertical).mkdir(parents=True)
    everything = [item for group in items.values() for item in group]
    jobs = [_Job(config, item, root) for item in everything]
    _draw_all(jobs, min(processes, len(jobs)), config.pictures)
    _write_manifest(root / MANIFEST, config, everything)
    # The sheet shows items, and what is unlabelled tells of none.
    rows = {
        vertical: [
            [root / name for name, _, _ in image_names(config, item)]
            for item in group
            if item.split != UNLABELLED
        ]
        for vertical, group in items.items()
    }
    contact_sheet(rows, CUES).save(root / SHEET, optimize=True)
    write_json(root / WORLD, world_json(config))
