"""What bulk embedding reads: a prepared dataset, a manifest's pictures, or a directory's."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.locations import beside, is_remote, locate, read_picture, write_aside
from apparel_embed.data.manifest import BOX_COLUMNS
from apparel_embed.data.picture_list import (
    IMAGE,
    box_of,
    fingerprint_directory,
    fingerprint_manifest,
    in_parts_of,
    list_directory,
    list_manifest,
)
from apparel_embed.data.picture_pool import PictureTask, prepare_pictures
from apparel_embed.data.pictures import PictureSettings
from apparel_embed.data.prepared import PreparedDataset

PREPARED, MANIFEST, DIRECTORY = "prepared", "manifest", "pictures"
SOURCES = (PREPARED, MANIFEST, DIRECTORY)
RECORD, EMBEDDING = "record", "embedding"

_PICTURES_PER_TASK = 16
_RECORDS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Which pictures to embed, and how they are prepared.

    Attributes:
      kind: one of `SOURCES`.
      location: the prepared dataset, the manifest, or the directory of pictures.
      settings: how pictures are prepared that are not prepared yet.
    """

    kind: str
    location: str
    settings: PictureSettings = PictureSettings()
    shard_pictures: int = setting(
        16384,
        "pictures in a file of the result, and what an interruption costs at most",
        1,
        10_000_000,
        seldom=True,
    )


class Source(Protocol):
    """Pictures in shards, in an order that does not change.

    Attributes:
      fingerprint: SHA-256 (hex) of what is to be embedded.
      schema: of the columns that are kept.
    """

    fingerprint: str
    schema: pa.Schema

    def plan(self, directory: str) -> int:
        """Notes in a directory, if need be, which pictures belong to which shard.

        Returns:
          The number of pictures.
        """

    def count(self) -> int:
        """Returns the number of pictures, and writes nothing."""

    def rows(self, directory: str, shard: int) -> pa.Table:
        """Returns the kept columns of a shard's pictures."""

    def names(self, rows: pa.Table) -> list[str]:
        """Returns what rows are called in the list of those that could not be embedded."""

    def pictures(
        self, directory: str, shards: Sequence[int], workers: int, *, threads: bool
    ) -> Generator[bytes | str, None, None]:
        """Yields the JPEG of each picture of some shards, or the reason why there is none.

        Args:
          directory: the one that `plan` was called with.
          shards: numbers of shards; their pictures come in this order.
          workers: processes that prepare pictures, 0 for one per core.
          threads: take threads instead of processes.
        """


def open_source(config: SourceConfig) -> Source:
    """Returns the pictures to embed.

    Raises:
      UserError: they are not there.
    """
    return PreparedSource(config) if config.kind == PREPARED else ListedSource(config)


class PreparedSource:
    """The records of a prepared dataset; see `Source`."""

    schema = pa.schema([(RECORD, pa.int64())])

    def __init__(self, config: SourceConfig) -> None:
        self._dataset = PreparedDataset.open(config.location)
        self._shard_pictures = config.shard_pictures
        self.fingerprint = self._dataset.fingerprint

    def plan(self, directory: str) -> int:
        """See `Source`."""
        return self.count()

    def count(self) -> int:
        """See `Source`."""
        return len(self._dataset)

    def rows(self, directory: str, shard: int) -> pa.Table:
        """See `Source`."""
        start = shard * self._shard_pictures
        stop = min(start + self._shard_pictures, len(self._dataset))
        return pa.table({RECORD: np.arange(start, stop, dtype=np.int64)})

    def names(self, rows: pa.Table) -> list[str]:
        """See `Source`."""
        return self._dataset.index[IMAGE].take(rows[RECORD]).to_pylist()

    def pictures(
        self, directory: str, shards: Sequence[int], workers: int, *, threads: bool
    ) -> Generator[bytes | str, None, None]:
        """See `Source`; there is nothing to prepare, and so no need of workers."""
        for shard in shards:
            records = self.rows(directory, shard)[RECORD].to_numpy()
            for start in range(0, len(records), _RECORDS_AT_ONCE):
                yield from self._read(records[start : start + _RECORDS_AT_ONCE])

    def _read(self, records: np.ndarray) -> list[bytes | str]:
        try:
            return [*self._dataset.read_images(records)]
        except UserError as error:
            if len(records) == 1:
                return [str(error)]
            return [self._read(records[i : i + 1])[0] for i in range(len(records))]


class ListedSource:
    """The pictures of a manifest or a directory, prepared on the way; see `Source`.

    Its list may be longer than memory: `plan` writes each shard's part of it into a file.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._config = config
        location = config.location
        if config.kind == MANIFEST:
            self._base = location.rpartition("/")[0] if "/" in location else "."
            self.fingerprint = fingerprint_manifest(location)
        else:
            self._base = location
            self.fingerprint = fingerprint_directory(location)
        first = next(self._tables(), None)
        if first is None or not first.num_rows:
            raise UserError(f"{location}: there are no pictures in it")
        self.schema = first.schema

    def plan(self, directory: str) -> int:
        """See `Source`."""
        count = 0
        for shard, rows in enumerate(in_parts_of(self._tables(), self._config.shard_pictures)):
            with write_aside(_list_path(directory, shard)) as file:
                pq.write_table(rows, file)
            count += rows.num_rows
        return count

    def count(self) -> int:
        """See `Source`."""
        return sum(table.num_rows for table in self._tables())

    def rows(self, directory: str, shard: int) -> pa.Table:
        """See `Source`."""
        system, path = locate(_list_path(directory, shard))
        with system.open_input_file(path) as file:
            return pq.read_table(file)

    def names(self, rows: pa.Table) -> list[str]:
        """See `Source`."""
        return rows[IMAGE].to_pylist()

    def pictures(
        self, directory: str, shards: Sequence[int], workers: int, *, threads: bool
    ) -> Generator[bytes | str, None, None]:
        """See `Source`."""
        tasks = (task for shard in shards for task in self._tasks(self.rows(directory, shard)))
        for found in prepare_pictures(
            tasks, self._base, self._config.settings, workers, threads=threads, fetch=read_picture
        ):
            yield found if isinstance(found, str) else found.jpeg

    def _tables(self) -> Iterator[pa.Table]:
        if self._config.kind == MANIFEST:
            return list_manifest(self._config.location, reserved=(EMBEDDING,))
        return list_directory(self._config.location)

    def _tasks(self, rows: pa.Table) -> Iterator[PictureTask]:
        images = rows[IMAGE].to_pylist()
        if is_remote(self._base):
            images = [beside(image, self._base) for image in images]
        boxes: list = [None] * len(images)
        if BOX_COLUMNS[0] in rows.column_names:
            texts = (rows[name].to_pylist() for name in BOX_COLUMNS)
            boxes = [box_of(box) for box in zip(*texts)]
        pictures = list(zip(images, boxes))
        for start in range(0, len(pictures), _PICTURES_PER_TASK):
            yield pictures[start : start + _PICTURES_PER_TASK]


def _list_path(directory: str, shard: int) -> str:
    return f"{directory}/list-{shard:05d}.parquet"
