"""One shard of a bulk embedding, whoever does it: read, embedded by batches, written when whole."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.common.settings import setting
from apparel_embed.data.locations import is_remote, write_aside
from apparel_embed.inference.bulk_sources import EMBEDDING, Source, SourceConfig

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
    """

    source: SourceConfig
    model_fingerprint: str
    output: str
    batch_size: int = setting(64, "pictures in a batch", 1, 4096)

    @property
    def work(self) -> str:
        """Where the result is written until it is whole.

        A store cannot rename a directory: there the summary, written last, tells that it is whole.
        """
        return self.output if is_remote(self.output) else f"{self.output.rstrip('/')}.partial"


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
        _write_rejects(config, rejects_name(shard, shards), source.names(rows), reasons)
    tell(rows.num_rows - told)
    return {"embedded": rows.num_rows - len(reasons), "rejected": len(reasons)}


def shard_name(shard: int, shards: int) -> str:
    """Returns the file name of a shard's embeddings, counted from 0."""
    return f"embeddings-{shard:05d}-of-{shards:05d}.parquet"


def rejects_name(shard: int, shards: int) -> str:
    """Returns the file name of the list of a shard's rejected pictures."""
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
