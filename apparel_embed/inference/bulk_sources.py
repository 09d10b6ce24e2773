"""Sources of bulk embedding: a prepared dataset, or the images of a manifest or directory."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from pyarrow import fs

from apparel_embed.common.errors import UserError
from apparel_embed.common.locations import beside, is_remote, locate, write_aside
from apparel_embed.common.settings import setting
from apparel_embed.common.text import counted
from apparel_embed.data.image_pool import prepare_images, read_remote
from apparel_embed.data.images import SUFFIXES, Box, ImageSettings
from apparel_embed.data.manifest import boxes_of, read_manifest_parts
from apparel_embed.data.prepare_plan import hash_sizes
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.store.sharded import ShardedDirectory

PREPARED, MANIFEST, DIRECTORY = "prepared", "manifest", "images"
SOURCES = (PREPARED, MANIFEST, DIRECTORY)
IMAGE, RECORD, EMBEDDING = "image", "record", "embedding"

_RECORDS_AT_ONCE = 64
_NAMES_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 24


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Which images to embed, and how they are prepared.

    Attributes:
      kind: one of `SOURCES`.
      location: the prepared dataset, the manifest, or the directory of images.
      settings: how images are prepared; not used for a prepared dataset.
    """

    kind: str
    location: str
    settings: ImageSettings = ImageSettings()
    shard_images: int = setting(
        16384,
        "images per output file, and the most that an interruption can lose",
        1,
        10_000_000,
        rare=True,
    )


def open_source(config: SourceConfig) -> Source:
    """Returns the images to embed; raises a UserError if they do not exist."""
    return _PreparedSource(config) if config.kind == PREPARED else _ListedSource(config)


class Source(abc.ABC):
    """Images in shards, in a fixed order.

    The list of images may not fit into memory: `plan` writes each shard's part of it to a file.

    Attributes:
      schema: schema of the columns that are kept.
    """

    schema: pa.Schema

    def __init__(self, config: SourceConfig) -> None:
        self.config = config

    @abc.abstractmethod
    def fingerprint(self, made: Path | None = None) -> str:
        """Returns the SHA-256 (hex) that identifies the images to embed.

        Args:
          made: a file that was written after they were embedded, to warn of later changes.
        """

    @abc.abstractmethod
    def tables(self) -> Iterator[pa.Table]:
        """Yields the kept columns of all images, in parts of any size."""

    @abc.abstractmethod
    def names(self, rows: pa.Table) -> list[str]:
        """Returns the names of rows for the list of rejected images."""

    @abc.abstractmethod
    def read(self, tables: Iterable[pa.Table], threads: int) -> Generator[bytes | str, None, None]:
        """Yields the JPEG of each row, or the reason for its rejection; see `images`."""

    def count(self) -> int:
        """Returns the number of images."""
        return sum(table.num_rows for table in self.tables())

    def plan(self, directory: ShardedDirectory) -> int:
        """Writes the list of images of each shard, and returns the number of images."""
        count = 0
        for shard, rows in enumerate(in_parts_of(self.tables(), self.config.shard_images)):
            with write_aside(_list_path(directory, shard)) as file:
                pq.write_table(rows, file)
            count += rows.num_rows
        return count

    def rows(self, directory: ShardedDirectory, shard: int) -> pa.Table:
        """Returns the kept columns of a shard's images, as written by `plan`."""
        system, path = locate(_list_path(directory, shard))
        with system.open_input_file(path) as file:
            return pq.read_table(file)

    def images(
        self, directory: ShardedDirectory, shards: Sequence[int], threads: int
    ) -> Generator[bytes | str, None, None]:
        """Yields the JPEG of each image of some shards, or the reason for its rejection.

        Args:
          directory: the directory that `plan` was called with.
          shards: numbers of shards; their images come in this order.
          threads: threads that prepare images, 0 for one per core. Decoders release the GIL, and
            threads start faster than processes.
        """
        return self.read((self.rows(directory, shard) for shard in shards), threads)


def _list_path(directory: ShardedDirectory, shard: int) -> str:
    return directory.scratch(f"list-{shard:05d}.parquet")


class _PreparedSource(Source):
    """The records of a prepared dataset."""

    schema = pa.schema([(RECORD, pa.int64())])

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        self._dataset = PreparedDataset.open(config.location)

    def fingerprint(self, made: Path | None = None) -> str:
        return self._dataset.fingerprint

    def tables(self) -> Iterator[pa.Table]:
        yield self._dataset.index.select([RECORD])

    def names(self, rows: pa.Table) -> list[str]:
        return self._dataset.index[IMAGE].take(rows[RECORD]).to_pylist()

    def read(self, tables: Iterable[pa.Table], threads: int) -> Generator[bytes | str, None, None]:
        for rows in tables:
            records = rows[RECORD].to_numpy()
            for start in range(0, len(records), _RECORDS_AT_ONCE):
                yield from self._read(records[start : start + _RECORDS_AT_ONCE])

    def _read(self, records: np.ndarray) -> list[bytes | str]:
        try:
            return [*self._dataset.read_images(records)]
        except UserError as error:
            if len(records) == 1:
                return [str(error)]
            return [self._read(records[i : i + 1])[0] for i in range(len(records))]


class _ListedSource(Source):
    """The images of a manifest or a directory, prepared on the fly."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config)
        self._base = config.location
        if config.kind == MANIFEST:
            self._base = self._base.rpartition("/")[0] if "/" in self._base else "."
        first = next(self.tables(), None)
        if first is None or not first.num_rows:
            raise UserError(f"{config.location}: contains no images")
        self.schema = first.schema

    def fingerprint(self, made: Path | None = None) -> str:
        total = hashlib.sha256()
        if self.config.kind == DIRECTORY:
            for name, size in _files(self.config.location):
                total.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
            return total.hexdigest()
        system, path = locate(self.config.location)
        with system.open_input_stream(path) as file:
            while block := file.read(_BYTES_AT_ONCE):
                total.update(block)
        if not is_remote(self._base):
            base = Path(self._base)
            newer = sum(hash_sizes(total, rows, base, made) for rows in self.tables())
            if newer:
                logging.warning(
                    "%s: %s modified after being embedded, but only sizes were compared; if the "
                    "contents have changed, choose another --output",
                    self.config.location,
                    counted(newer, "image was", "images were"),
                )
        return total.hexdigest()

    def tables(self) -> Iterator[pa.Table]:
        if self.config.kind == MANIFEST:
            return read_manifest_parts(self.config.location, reserved=(EMBEDDING,))
        return list_directory(self.config.location)

    def names(self, rows: pa.Table) -> list[str]:
        return rows[IMAGE].to_pylist()

    def read(self, tables: Iterable[pa.Table], threads: int) -> Generator[bytes | str, None, None]:
        images = (image for rows in tables for image in self._images(rows))
        prepared = prepare_images(
            images, self._base, self.config.settings, threads, threads=True, fetch=read_remote
        )
        with contextlib.closing(prepared) as stream:
            for found in stream:
                yield found if isinstance(found, str) else found.jpeg

    def _images(self, rows: pa.Table) -> Iterator[tuple[str, Box | None]]:
        images = rows[IMAGE].to_pylist()
        if is_remote(self._base):
            images = [beside(image, self._base) for image in images]
        return zip(images, boxes_of(rows))


def list_directory(directory: str) -> Iterator[pa.Table]:
    """Lists the images below a directory, here or in a store, in order of names.

    Args:
      directory: searched with all its subdirectories.

    Yields:
      Tables with the column `image`: paths relative to `directory` of files with the extension of
      an image. Names that begin with a dot are skipped.

    Raises:
      UserError: if the directory does not exist, or cannot be read.
    """
    names = (name for name, _ in _files(directory))
    while part := list(itertools.islice(names, _NAMES_AT_ONCE)):
        yield pa.table({IMAGE: pa.array(part, pa.string())})


def in_parts_of(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yields the same rows in tables of `rows` rows; the last may have fewer."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows)
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting)


def _files(directory: str, below: str = "") -> Iterator[tuple[str, int]]:
    """Yields the path relative to `directory` and the size in bytes of every image, by name."""
    system, path = locate(beside(below, directory) if below else directory)
    try:
        found = system.get_file_info(fs.FileSelector(path))
    except OSError as error:
        reason = "no such directory" if isinstance(error, FileNotFoundError) else str(error)
        raise UserError(f"{directory}: {' '.join(reason.split())}") from error
    for info in sorted(found, key=lambda info: info.base_name):
        name = f"{below}/{info.base_name}" if below else info.base_name
        if info.base_name.startswith("."):
            continue
        if info.type == fs.FileType.Directory:
            yield from _files(directory, name)
        elif info.base_name.lower().endswith(SUFFIXES):
            yield name, info.size
