"""Bulk embedding: any number of pictures into Parquet shards, to be interrupted at any moment.

A shard is a fixed range of the pictures, and is embedded by the same batches whoever does it: this
process, or a worker of a Beam pipeline. It gets its name when it is whole, and is never done twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
from absl import logging
from pyarrow import fs

from apparel_embed.common.errors import UserError
from apparel_embed.common.locks import only_writer
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.locations import is_remote, locate, write_aside
from apparel_embed.inference.bulk_shard import (
    BulkConfig,
    Embed,
    embed_shard,
    rejects_name,
    shard_name,
)
from apparel_embed.inference.bulk_sources import EMBEDDING, PREPARED, Source, open_source

SUMMARY_FILE = "embed.json"
REJECTS_FILE = "rejects.csv"
SCHEMA_VERSION = 1

_PLAN_FILE = "plan.json"


Run = Callable[[BulkConfig, Sequence[int], int], None]
"""Embeds the shards of these numbers, out of so many."""


def bulk_embed(config: BulkConfig, run: Run) -> dict[str, Any]:
    """Embeds pictures, goes on with what was interrupted, or finds it finished.

    Args:
      config: what to do.
      run: who embeds the shards that are missing, such as `run_here`.

    Returns:
      The content of the summary: `pictures`, `embedded`, `rejected`, `dim` and `shards`, beside
      what it was made of.

    Raises:
      UserError: source or model are wrong, output or its partial directory were made from
        something else, or another process writes to it.
    """
    _check_numbers(config)
    lock: contextlib.AbstractContextManager = contextlib.nullcontext()
    if not is_remote(config.output):
        # Of a store no lock is known: there two at a time do the same work twice.
        config = dataclasses.replace(config, output=locate(config.output)[1])
        lock = only_writer(Path(config.output))
    with lock:
        return _embed(config, run)


def plan_embedding(config: BulkConfig) -> tuple[str, int, int]:
    """Tells what `bulk_embed` would do, and writes nothing; its errors are that one's.

    Returns:
      The state in words, the number of pictures, and how many of them are still to be embedded.
    """
    _check_numbers(config)
    source = open_source(config.source)
    plan = _plan(config, source)
    finished = _find_finished(config, plan)
    if finished is not None:
        return "finished", finished["pictures"], 0
    pictures, at_once = source.count(), config.source.shard_pictures
    begun = _read_json(config.work, _PLAN_FILE)
    if begun is None:
        return "to do", pictures, pictures
    _check_same(config.work, begun, plan)
    shards = -(-pictures // at_once)
    found = file_names(config.work)
    todo = [shard for shard in range(shards) if shard_name(shard, shards) not in found]
    left = sum(min(at_once, pictures - shard * at_once) for shard in todo)
    return "to be gone on with", pictures, left


def _check_numbers(config: BulkConfig) -> None:
    for name, value in (
        ("batch_size", config.batch_size),
        ("shard_pictures", config.source.shard_pictures),
    ):
        if value < 1:
            raise UserError(f"--{name}={value}: allowed is 1 or more")


def _plan(config: BulkConfig, source: Source) -> dict[str, Any]:
    """Returns all that decides what the result will be, as JSON."""
    prepared = config.source.kind == PREPARED
    return {
        "schema_version": SCHEMA_VERSION,
        "source": {"kind": config.source.kind, "fingerprint": source.fingerprint},
        # Of a prepared dataset its fingerprint tells.
        "settings": None if prepared else dataclasses.asdict(config.source.settings),
        "model": config.model_fingerprint,
        "batch_size": config.batch_size,
        "shard_pictures": config.source.shard_pictures,
    }


def _find_finished(config: BulkConfig, plan: dict[str, Any]) -> dict[str, Any] | None:
    """Returns the summary of a result that is there; None where there is none.

    Raises:
      UserError: it was made of something else, or something else is there.
    """
    finished = _read_json(config.output, SUMMARY_FILE)
    if finished is not None:
        _check_same(config.output, finished, plan)
    elif config.work != config.output and Path(config.output).exists():
        raise UserError(f"{config.output}: exists and is no bulk embedding; name another --output")
    return finished


def _embed(config: BulkConfig, run: Run) -> dict[str, Any]:
    source = open_source(config.source)
    plan = _plan(config, source)
    finished = _find_finished(config, plan)
    if finished is not None:
        logging.info("%s: finished before, skipped", config.output)
        return finished
    summary = _read_json(config.work, SUMMARY_FILE)
    if summary is not None:
        _check_same(config.work, summary, plan)
    else:
        pictures = _begin(config, plan, source)
        shards = -(-pictures // config.source.shard_pictures)
        found = file_names(config.work)
        todo = [shard for shard in range(shards) if shard_name(shard, shards) not in found]
        if len(todo) < shards:
            logging.info(
                "%s: going on; of %d shards %d are missing", config.work, shards, len(todo)
            )
        if todo:
            run(config, todo, shards)
        _summarise(config, plan, pictures, shards)
    return _publish(config)


def run_here(
    config: BulkConfig,
    todo: Sequence[int],
    shards: int,
    *,
    load: Callable[[], Embed],
    processes: int = 0,
) -> None:
    """Embeds shards in this process, pictures being prepared by others.

    Args:
      config: what to do.
      todo: numbers of the shards.
      shards: how many there are in all.
      load: loads the model.
      processes: that prepare pictures, 0 for one per core; they do not change the result.
    """
    source, embed = open_source(config.source), load()
    # Only the last of all shards may have fewer.
    last = source.rows(config.work, todo[-1]).num_rows
    total = (len(todo) - 1) * config.source.shard_pictures + last
    bar = progress_bar(total=total, what="embed", unit="images")
    stream = source.pictures(config.work, todo, processes, threads=False)
    with bar, contextlib.closing(stream) as pictures:
        for shard in todo:
            embed_shard(config, source, shard, shards, pictures, embed, bar.update)


def _begin(config: BulkConfig, plan: dict[str, Any], source: Source) -> int:
    """Makes the list of pictures, or finds the one to go on with; returns their number."""
    begun = _read_json(config.work, _PLAN_FILE)
    if begun is not None:
        _check_same(config.work, begun, plan)
        _remove(config.work, lambda name: name.startswith("."))
        return begun["pictures"]
    pictures = source.plan(config.work)
    if not pictures:
        raise UserError(f"{config.source.location}: there are no pictures in it")
    _write_json(config.work, _PLAN_FILE, {**plan, "pictures": pictures})
    return pictures


def _summarise(config: BulkConfig, plan: dict[str, Any], pictures: int, shards: int) -> None:
    """Writes the list of all rejected pictures, and the summary."""
    names = [shard_name(shard, shards) for shard in range(shards)]
    counts = []
    dim = 0
    for name in names:
        system, path = locate(f"{config.work}/{name}")
        with system.open_input_file(path) as file:
            shard = pq.ParquetFile(file)
            counts.append(shard.metadata.num_rows)
            dim = shard.schema_arrow.field(EMBEDDING).type.list_size
    with write_aside(f"{config.work}/{REJECTS_FILE}") as file:
        file.write(b"image,reason\n")
        for shard in range(shards):
            system, path = locate(f"{config.work}/{rejects_name(shard, shards)}")
            with system.open_input_stream(path) as part:
                file.write(part.read())
    summary = {
        **plan,
        "pictures": pictures,
        "embedded": sum(counts),
        "rejected": pictures - sum(counts),
        "dim": dim,
        "shards": [{"file": name, "rows": count} for name, count in zip(names, counts)],
    }
    _write_json(config.work, SUMMARY_FILE, summary)


def _publish(config: BulkConfig) -> dict[str, Any]:
    """Removes what was only needed on the way, and gives the result its name."""
    kept = (SUMMARY_FILE, REJECTS_FILE)
    _remove(config.work, lambda name: not name.startswith("embeddings-") and name not in kept)
    if config.work != config.output:
        os.replace(config.work, config.output)
    return cast(dict[str, Any], _read_json(config.output, SUMMARY_FILE))


def _check_same(location: str, old: dict[str, Any], plan: dict[str, Any]) -> None:
    for key, value in plan.items():
        if old.get(key) != value:
            raise UserError(
                f"{location}: was made with {key} {old.get(key)!r}, now it is {value!r}; remove "
                "that directory or name another --output"
            )


def file_names(directory: str) -> set[str]:
    """Returns the names of the files in a directory; none where it is not there."""
    system, path = locate(directory)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return {info.base_name for info in found if info.type == fs.FileType.File}


def _remove(directory: str, wanted: Callable[[str], bool]) -> None:
    system, path = locate(directory)
    for name in sorted(file_names(directory)):
        if wanted(name):
            system.delete_file(f"{path}/{name}")


def _read_json(directory: str, name: str) -> dict[str, Any] | None:
    """Returns the value in a file, None where there is none."""
    system, path = locate(f"{directory}/{name}")
    if system.get_file_info(path).type != fs.FileType.File:
        return None
    try:
        with system.open_input_stream(path) as file:
            return json.loads(file.read())
    except ValueError as error:
        raise UserError(f"{directory}/{name}: is damaged ({error}); remove {directory}") from error


def _write_json(directory: str, name: str, value: dict[str, Any]) -> None:
    with write_aside(f"{directory}/{name}") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")
