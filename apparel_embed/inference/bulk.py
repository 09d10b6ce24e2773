"""Bulk embedding: any number of images into Parquet shards; can be interrupted at any time.

A shard is a fixed range of the images, and is embedded in the same batches, whether by this process
or by a worker of a cluster.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from tqdm import tqdm

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import is_remote, write_aside
from apparel_embed.common.progress import progress_bar
from apparel_embed.inference.bulk_shard import (
    SUMMARY_FILE,
    BulkConfig,
    Embed,
    embed_shards,
    shard_name,
)
from apparel_embed.inference.bulk_sources import PREPARED, Source, open_source

REJECTS_FILE = "rejects.csv"
SCHEMA_VERSION = 2
_IMAGES = "images"

Run = Callable[[BulkConfig, Sequence[int], int], None]
"""Embeds shards: takes the configuration, the shards' numbers, and the total number of shards."""


def bulk_embed(config: BulkConfig, run: Run) -> dict[str, Any]:
    """Embeds images or resumes an interrupted embedding; does nothing if it is finished.

    Args:
      config: what to embed.
      run: embeds the missing shards, such as `run_here`.

    Returns:
      The content of the summary: `images`, `embedded`, `rejected`, `dim` and `shards`, and the
      inputs that they were made from.

    Raises:
      UserError: if source or model are invalid, the output or its partial directory was made from
        other inputs, or another process writes to it.
    """
    source = open_source(config.source)
    work = functools.partial(_embed, config, source, run)
    return config.directory.make(_plan(config, source), work)


def plan_embedding(config: BulkConfig) -> tuple[str, int, int]:
    """Returns what `bulk_embed` would do, without writing anything; raises the same errors.

    Returns:
      The state in words, the number of images, and how many of them remain to be embedded.
    """
    source = open_source(config.source)
    plan, directory = _plan(config, source), config.directory
    finished = directory.find_finished(plan)
    if finished is not None:
        return "finished", finished["images"], 0
    images = source.count()
    if not directory.is_begun(plan):
        return "to do", images, images
    todo = directory.missing(_names(config, images))
    at_once = config.source.shard_images
    left = sum(min(at_once, images - shard * at_once) for shard in todo)
    return "to be resumed", images, left


def run_here(
    config: BulkConfig,
    todo: Sequence[int],
    shards: int,
    *,
    load: Callable[[], Embed],
    threads: int = 0,
) -> None:
    """Embeds shards in this process.

    Args:
      config: what to embed.
      todo: numbers of the shards.
      shards: total number of shards.
      load: loads the model.
      threads: threads that prepare images, 0 for one per core.
    """
    source, embed = open_source(config.source), load()
    with embedding_bar(config, source, todo) as bar:
        embed_shards(config, source, todo, shards, embed, bar.update, threads)


def embedding_bar(config: BulkConfig, source: Source, todo: Sequence[int]) -> tqdm:
    """Returns a progress bar for the images in some shards."""
    # Only the last shard of all may have fewer images.
    last = source.rows(config.directory, todo[-1]).num_rows
    total = (len(todo) - 1) * config.source.shard_images + last
    return progress_bar(total=total, what="embed", unit="images")


def _plan(config: BulkConfig, source: Source) -> dict[str, Any]:
    """Returns everything that determines the result, as JSON."""
    at_once, batch_size = config.source.shard_images, config.batch_size
    for name, value in (("batch_size", batch_size), ("shard_images", at_once)):
        if value < 1:
            raise UserError(f"--{name}={value}: expected 1 or more")
    prepared = config.source.kind == PREPARED
    made = None if is_remote(config.output) else Path(config.output) / SUMMARY_FILE
    return {
        "schema_version": SCHEMA_VERSION,
        "source": {"kind": config.source.kind, "fingerprint": source.fingerprint(made)},
        # The fingerprint of a prepared dataset covers its prepared images.
        "settings": None if prepared else dataclasses.asdict(config.source.settings),
        "model": config.model_fingerprint,
        "batch_size": batch_size,
        "shard_images": at_once,
    }


def _names(config: BulkConfig, images: int) -> list[str]:
    shards = -(-images // config.source.shard_images)
    return [shard_name(shard, shards) for shard in range(shards)]


def _embed(config: BulkConfig, source: Source, run: Run) -> dict[str, Any]:
    """Writes all shards that earlier calls did not finish; returns the result."""
    directory = config.directory
    planned = directory.recall(_IMAGES)
    if planned is None:
        planned = {_IMAGES: source.plan(directory)}
        directory.remember(_IMAGES, planned)
    names = _names(config, planned[_IMAGES])
    todo = directory.missing(names)
    if len(todo) < len(names):
        message = "%s: resuming; %d of %d shards are missing"
        logging.info(message, directory.work, len(todo), len(names))
    if todo:
        run(config, todo, len(names))
    return _summarise(config, planned[_IMAGES], len(names))


def _summarise(config: BulkConfig, images: int, shards: int) -> dict[str, Any]:
    """Writes the list of all rejected images; returns the result."""
    rows, dim, rejected = [], 0, 0
    with write_aside(f"{config.directory.work}/{REJECTS_FILE}") as file:
        file.write(b"image,reason\n")
        for shard in range(shards):
            found = config.directory.recall(shard) or {}
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows(found["rejects"])
            file.write(text.getvalue().encode())
            rows.append({"file": found["file"], "rows": found["rows"]})
            dim = found["dim"]
            rejected += len(found["rejects"])
    counts = {"images": images, "embedded": images - rejected, "rejected": rejected}
    return {**counts, "rows": sum(shard["rows"] for shard in rows), "dim": dim, "shards": rows}
