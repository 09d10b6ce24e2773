"""Reads, embeds and writes the shards of a bulk embedding, in any process."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import write_aside
from apparel_embed.common.settings import setting
from apparel_embed.inference.bulk_sources import EMBEDDING, Source, SourceConfig
from apparel_embed.store.sharded import ShardedDirectory

SUMMARY_FILE = "embed.json"
NO_GARMENT = "no garment was found"
_ROWS_PER_GROUP = 8192
# Batches in progress at the same time: while one is in the model, the next is decoded.
_BATCHES_IN_FLIGHT = 2

# Positions of images in the shard, and the images.
_Batch = tuple[np.ndarray, "list[bytes]"]


class Answer(NamedTuple):
    """A model's result for n images: a row for each, or for each garment in them.

    Attributes:
      images: int64 [m], the image of each row, ascending.
      embeddings: float32 [m, dim].
      valid: bool [n], whether the image could be decoded.
      columns: further arrays [m] of the result, as listed in `Embed.fields`.
    """

    images: np.ndarray
    embeddings: np.ndarray
    valid: np.ndarray
    columns: Sequence[pa.Array] = ()


class Embed(Protocol):
    """A model that takes encoded images.

    Attributes:
      dim: length of an embedding.
      fields: further columns of the result.
    """

    dim: int
    fields: Sequence[pa.Field]

    def __call__(self, images: Sequence[bytes]) -> Answer:
        """Embeds images."""


@dataclasses.dataclass(frozen=True)
class BulkConfig:
    """The images, the model and the output of a bulk embedding.

    Attributes:
      source: the images.
      model_fingerprint: fingerprint of the model that embeds them.
      output: directory of the result, on this machine or in a store.
    """

    source: SourceConfig
    model_fingerprint: str
    output: str
    batch_size: int = setting(64, "images in a batch", 1, 4096)

    @property
    def directory(self) -> ShardedDirectory:
        """The output directory, finished or not."""
        return ShardedDirectory(self.output, SUMMARY_FILE, "bulk embedding")


def shard_name(shard: int, shards: int) -> str:
    """Returns the file name of a shard's embeddings; shards are numbered from 0."""
    return f"embeddings-{shard:05d}-of-{shards:05d}.parquet"


def embed_shards(
    config: BulkConfig,
    source: Source,
    todo: Sequence[int],
    shards: int,
    embed: Embed,
    report: Callable[[int], object],
    threads: int = 0,
) -> None:
    """Embeds and writes shards, and records the images that could not be embedded.

    Args:
      config: what to embed.
      source: the images.
      todo: numbers of the shards.
      shards: total number of shards.
      embed: the model.
      report: called with the number of further images that are done.
      threads: threads that prepare images, 0 for one per core.

    Raises:
      UserError: if a column of the source has the name of a column of the model's result.
    """
    for field in embed.fields:
        if field.name in source.schema.names:
            raise UserError(
                f"{config.source.location}: column {field.name!r} has a reserved name; rename it"
            )
    stream = source.images(config.directory, todo, threads)
    with contextlib.closing(stream) as images, warnings.catch_warnings():
        # Pillow warns about odd metadata; warning filters are not per thread.
        warnings.simplefilter("ignore")
        for shard in todo:
            _embed_shard(config, source, shard, shards, images, embed, report)


def _embed_shard(
    config: BulkConfig,
    source: Source,
    shard: int,
    shards: int,
    images: Iterator[bytes | str],
    embed: Embed,
    report: Callable[[int], object],
) -> None:
    """Embeds one shard, whose images come next in `images`."""
    rows, name = source.rows(config.directory, shard), shard_name(shard, shards)
    reasons: dict[int, str] = {}
    schema = source.schema
    for field in (*embed.fields, pa.field(EMBEDDING, pa.list_(pa.float32(), embed.dim))):
        schema = schema.append(field)
    written = 0
    # Texts repeat; for numbers, which are almost all different, a dictionary would waste space.
    texts = [field.name for field in source.schema if pa.types.is_string(field.type)]
    batches = _batches(images, rows.num_rows, config.batch_size, reasons)
    embedded = _embedded(batches, embed, reasons, rows.num_rows, report)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(write_aside(f"{config.directory.work}/{name}"))
        writer = pq.ParquetWriter(file, schema, use_dictionary=texts or False)
        stack.enter_context(writer)
        for found in _groups(embedded):
            flat = pa.array(found.embeddings.ravel(), pa.float32())
            column = pa.FixedSizeListArray.from_arrays(flat, found.embeddings.shape[1])
            table = rows.take(pa.array(found.images))
            for field, values in zip(
                schema.names[-1 - len(found.columns) :], (*found.columns, column)
            ):
                table = table.append_column(field, values)
            writer.write_table(table.cast(schema))
            written += table.num_rows
    names = source.names(rows)
    rejects = [[names[place], reason] for place, reason in sorted(reasons.items())]
    done = {"file": name, "rows": written, "dim": embed.dim, "rejects": rejects}
    # Last, since this marks the shard as finished.
    config.directory.remember(shard, done)


def _batches(
    images: Iterator[bytes | str], count: int, batch_size: int, reasons: dict[int, str]
) -> Iterator[_Batch]:
    """Yields images in batches; records the reason for each image that cannot be read."""
    places: list[int] = []
    batch: list[bytes] = []
    for place in range(count):
        image = next(images)
        if isinstance(image, str):
            reasons[place] = image
            continue
        places.append(place)
        batch.append(image)
        if len(batch) == batch_size:
            yield np.array(places), batch
            places, batch = [], []
    if batch:
        yield np.array(places), batch


def _embedded(
    batches: Iterable[_Batch],
    embed: Embed,
    reasons: dict[int, str],
    count: int,
    report: Callable[[int], object],
) -> Iterator[Answer]:
    """Yields answers batch by batch, with positions in the shard; records why images have no row.

    Reports `count` images in total, including those that were in no batch.
    """
    reported = 0
    waiting: collections.deque[tuple[np.ndarray, Future]] = collections.deque()

    def finish() -> Answer:
        nonlocal reported
        places, future = waiting.popleft()
        answer = future.result()
        good = answer.valid[answer.images] & np.isfinite(answer.embeddings).all(axis=1)
        for image in np.setdiff1d(np.arange(len(places)), answer.images[good]):
            reason = "the model's embedding is not finite"
            if not answer.valid[image]:
                reason = "cannot be decoded"
            elif image not in answer.images:
                reason = NO_GARMENT
            reasons[int(places[image])] = reason
        report(int(places[-1]) + 1 - reported)
        reported = int(places[-1]) + 1
        columns = [values.filter(pa.array(good)) for values in answer.columns]
        return Answer(places[answer.images[good]], answer.embeddings[good], answer.valid, columns)

    with ThreadPoolExecutor(_BATCHES_IN_FLIGHT) as threads:
        for places, batch in batches:
            waiting.append((places, threads.submit(embed, batch)))
            if len(waiting) > _BATCHES_IN_FLIGHT:
                yield finish()
        while waiting:
            yield finish()
    report(count - reported)


def _groups(batches: Iterable[Answer]) -> Iterator[Answer]:
    """Yields answers joined into row groups."""
    waiting: list[Answer] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch.images)
        if count >= _ROWS_PER_GROUP:
            yield _joined(waiting)
            waiting, count = [], 0
    if count:
        yield _joined(waiting)


def _joined(answers: Sequence[Answer]) -> Answer:
    images, embeddings, valid = (np.concatenate(values) for values in list(zip(*answers))[:3])
    columns = [pa.concat_arrays(values) for values in zip(*(one.columns for one in answers))]
    return Answer(images, embeddings, valid, columns)
