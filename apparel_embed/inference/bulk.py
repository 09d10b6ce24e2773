"""Bulk embedding: any number of pictures into Parquet shards, to be interrupted at any moment.

A shard is a fixed range of the pictures, and is embedded by the same batches whoever does it: this
process, or a worker of a Beam pipeline. It gets its name when it is whole, and is never done twice.
"""

from __future__ import annotations

import collections
import contextlib
import csv
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from pyarrow import fs

from apparel_embed.data.locations import is_remote, locate, write_aside
from apparel_embed.errors import UserError
from apparel_embed.inference.bulk_sources import (
    EMBEDDING,
    PREPARED,
    Source,
    SourceConfig,
    open_source,
)
from apparel_embed.locks import only_writer
from apparel_embed.progress import progress_bar

SUMMARY_FILE = "embed.json"
REJECTS_FILE = "rejects.csv"
SCHEMA_VERSION = 1

_PLAN_FILE = "plan.json"
_ROWS_PER_GROUP = 8192
# Batches that are decoded or embedded at the same time: while one is in the model, the next is
# decoded.
_BATCHES_IN_FLIGHT = 2

_T = TypeVar("_T")
_R = TypeVar("_R")


class Embed(Protocol):
    """A model that takes pictures as they are in files.

    Attributes:
      dim: length of an embedding.
    """

    dim: int

    def __call__(self, pictures: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings float32 [n, dim], and bool [n], false where there is no picture."""


@dataclasses.dataclass(frozen=True)
class BulkConfig:
    """What to embed, by what, and where to.

    Attributes:
      source: the pictures.
      model_fingerprint: of the model that embeds them.
      output: directory of the result, on this machine or in a store.
      batch_size: pictures a batch, 1 or more.
    """

    source: SourceConfig
    model_fingerprint: str
    output: str
    batch_size: int

    @property
    def work(self) -> str:
        """Where the result is written until it is whole.

        A store cannot rename a directory: there the summary, written last, tells that it is whole.
        """
        return self.output if is_remote(self.output) else f"{self.output.rstrip('/')}.partial"


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
    for name, value in (
        ("batch_size", config.batch_size),
        ("shard_pictures", config.source.shard_pictures),
    ):
        if value < 1:
            raise UserError(f"--{name}={value}: allowed is 1 or more")
    lock: contextlib.AbstractContextManager = contextlib.nullcontext()
    if not is_remote(config.output):
        # Of a store no lock is known: there two at a time do the same work twice.
        config = dataclasses.replace(config, output=locate(config.output)[1])
        lock = only_writer(Path(config.output))
    with lock:
        return _embed(config, run)


def _embed(config: BulkConfig, run: Run) -> dict[str, Any]:
    source = open_source(config.source)
    prepared = config.source.kind == PREPARED
    plan = {
        "schema_version": SCHEMA_VERSION,
        "source": {"kind": config.source.kind, "fingerprint": source.fingerprint},
        # Of a prepared dataset its fingerprint tells.
        "settings": None if prepared else dataclasses.asdict(config.source.settings),
        "model": config.model_fingerprint,
        "batch_size": config.batch_size,
        "shard_pictures": config.source.shard_pictures,
    }
    finished = _read_json(config.output, SUMMARY_FILE)
    if finished is not None:
        _check_same(config.output, finished, plan)
        logging.info("%s: finished before, skipped", config.output)
        return finished
    if config.work != config.output and Path(config.output).exists():
        raise UserError(f"{config.output}: exists and is no bulk embedding; name another --output")
    summary = _read_json(config.work, SUMMARY_FILE)
    if summary is not None:
        _check_same(config.work, summary, plan)
    else:
        pictures = _begin(config, plan, source)
        shards = -(-pictures // config.source.shard_pictures)
        found = _file_names(config.work)
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


def embed_shard(
    config: BulkConfig,
    source: Source,
    shard: int,
    shards: int,
    pictures: Iterator[bytes | str],
    embed: Embed,
    tell: Callable[[int], object] = lambda count: None,
) -> dict[str, int]:
    """Embeds one shard and writes it, with the list of what could not be embedded.

    Args:
      config: what to do.
      source: the pictures.
      shard: number of the shard.
      shards: how many there are in all.
      pictures: those of this shard come next.
      embed: the model.
      tell: called with numbers of pictures that are done.

    Returns:
      Numbers of pictures `embedded` and `rejected`.
    """
    rows = source.rows(config.work, shard)
    reasons: dict[int, str] = {}
    told = 0
    schema = source.schema.append(pa.field(EMBEDDING, pa.list_(pa.float32(), embed.dim)))
    # Texts repeat themselves; numbers that are nearly all different would only cost space.
    texts = [field.name for field in source.schema if pa.types.is_string(field.type)]
    batches = _batches(pictures, rows.num_rows, config.batch_size, reasons)
    with write_aside(f"{config.work}/{shard_name(shard, shards)}") as file:
        with pq.ParquetWriter(file, schema, use_dictionary=texts or False) as writer:
            group = _RowGroup(writer, rows)
            for (places, _), (embeddings, valid) in _in_flight(lambda b: embed(b[1]), batches):
                good = valid & np.isfinite(embeddings).all(axis=1)
                for place, is_picture in zip(places[~good], valid[~good]):
                    reasons[int(place)] = (
                        "the model's embedding is not finite" if is_picture else "cannot be decoded"
                    )
                group.add(places[good], embeddings[good])
                told += len(places)
                tell(len(places))
            group.write()
        # First the list of what is missing: a shard that is there is done.
        _write_rejects(config, _rejects_name(shard, shards), source.names(rows), reasons)
    tell(rows.num_rows - told)
    return {"embedded": rows.num_rows - len(reasons), "rejected": len(reasons)}


def shard_name(shard: int, shards: int) -> str:
    """Returns the file name of a shard's embeddings, counted from 0."""
    return f"embeddings-{shard:05d}-of-{shards:05d}.parquet"


def _rejects_name(shard: int, shards: int) -> str:
    return f"rejects-{shard:05d}-of-{shards:05d}.csv"


class _RowGroup:
    """Rows that wait to be written together."""

    def __init__(self, writer: pq.ParquetWriter, rows: pa.Table) -> None:
        self._writer = writer
        self._rows = rows
        self._places: list[np.ndarray] = []
        self._embeddings: list[np.ndarray] = []
        self._count = 0

    def add(self, places: np.ndarray, embeddings: np.ndarray) -> None:
        """Adds embeddings of the rows at some places."""
        self._places.append(places)
        self._embeddings.append(embeddings)
        self._count += len(places)
        if self._count >= _ROWS_PER_GROUP:
            self.write()

    def write(self) -> None:
        """Writes what waits."""
        if not self._count:
            return
        kept = self._rows.take(pa.array(np.concatenate(self._places)))
        embeddings = np.concatenate(self._embeddings)
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(embeddings.ravel(), pa.float32()), embeddings.shape[1]
        )
        self._writer.write_table(kept.append_column(EMBEDDING, column))
        self._places, self._embeddings, self._count = [], [], 0


def _batches(
    pictures: Iterator[bytes | str], count: int, batch_size: int, reasons: dict[int, str]
) -> Iterator[tuple[np.ndarray, list[bytes]]]:
    """Yields places and pictures in batches; notes the reason of each that cannot be had."""
    places: list[int] = []
    batch: list[bytes] = []
    for place in range(count):
        picture = next(pictures)
        if isinstance(picture, str):
            reasons[place] = picture
            continue
        places.append(place)
        batch.append(picture)
        if len(batch) == batch_size:
            yield np.array(places), batch
            places, batch = [], []
    if batch:
        yield np.array(places), batch


def _in_flight(work: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[tuple[_T, _R]]:
    """Yields each item with the result of its work, in order, some being worked on at a time."""
    waiting: collections.deque[tuple[_T, Future[_R]]] = collections.deque()
    with ThreadPoolExecutor(_BATCHES_IN_FLIGHT) as threads:
        for item in items:
            waiting.append((item, threads.submit(work, item)))
            if len(waiting) > _BATCHES_IN_FLIGHT:
                done, result = waiting.popleft()
                yield done, result.result()
        while waiting:
            done, result = waiting.popleft()
            yield done, result.result()


def _write_rejects(
    config: BulkConfig,
    name: str,
    names: Sequence[str],
    reasons: dict[int, str],
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([names[place], reason] for place, reason in sorted(reasons.items()))
    with write_aside(f"{config.work}/{name}") as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))


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
            system, path = locate(f"{config.work}/{_rejects_name(shard, shards)}")
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


def _file_names(directory: str) -> set[str]:
    system, path = locate(directory)
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return {info.base_name for info in found if info.type == fs.FileType.File}


def _remove(directory: str, wanted: Callable[[str], bool]) -> None:
    system, path = locate(directory)
    for name in sorted(_file_names(directory)):
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
