"""Embeddings of images in a file of SQLite, found by looking at every one of them.

A search multiplies a matrix in memory by the query, which takes some 20 ms for a million vectors of
64 numbers: an index inside a process needs no graph. SQLite does the rest: a write is complete or
absent, however the process ends, and other processes can read meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import operator
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from apparel_embed.common.errors import UserError
from apparel_embed.common.locks import only_writer
from apparel_embed.search.index import (
    IMAGES_PER_ITEM,
    Hit,
    IndexAccess,
    IndexedPicture,
    IndexSettings,
    VectorIndex,
    Version,
    check_complete,
    check_embeddings,
)

# "appa": tells our files from others of SQLite, such as those of Milvus Lite.
_APPLICATION = 0x61707061
# A writer blocks readers only while it commits; readers block a writer while they read a version.
_WAIT_SECONDS = 120
_ROWS_AT_ONCE = 10_000
_FIELDS = tuple(field.name for field in dataclasses.fields(IndexedPicture))
_values_of = operator.attrgetter(*_FIELDS)
_COLUMNS = pa.schema(
    [(name, pa.large_string()) for name in _FIELDS[:-1]] + [("record", pa.int64())]
)
# Any number of texts for one parameter of a statement.
_LISTED = "IN (SELECT value FROM json_each(?))"


@contextlib.contextmanager
def open_index(uri: str, access: IndexAccess, *, to_read: bool) -> Iterator[VectorIndex]:
    """See `index.open_index`; one process at a time may open a file to write to it."""
    del access
    path = Path(uri)
    with contextlib.nullcontext() if to_read else only_writer(path):
        yield FileIndex(path, to_read=to_read)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """A version as it is in memory, the images of each vertical side by side.

    Attributes:
      filled: how often the version had been filled when it was read.
      pictures: a column for each field of `IndexedPicture`.
      embeddings: float32 [n, dim].
      offsets: half the squared length of each, for they are of unit length but nearly.
      items: number of each image's item; an image without one has a number of its own.
      spans: of a vertical, the place of its first image and that behind its last.
    """

    filled: int
    pictures: pa.Table
    embeddings: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    spans: dict[str, tuple[int, int]]

    def nearest(
        self,
        query: np.ndarray,
        k: int,
        verticals: Sequence[str] | None,
        by_item: bool,
        without: str,
    ) -> np.ndarray:
        """Returns the places of the k nearest images, nearest first; see `VectorIndex.search`."""
        spans = [(0, len(self.embeddings))]
        if verticals is not None:
            spans = [self.spans[name] for name in sorted({*verticals} & {*self.spans})]
        if not spans:
            return np.empty(0, np.int64)
        places = np.concatenate([np.arange(*span) for span in spans])
        # The greater, the less is the distance.
        scores = np.concatenate(
            [self.embeddings[start:end] @ query - self.offsets[start:end] for start, end in spans]
        )
        limit = k * IMAGES_PER_ITEM
        while True:
            some = np.arange(len(scores))
            if limit < len(scores):
                some = np.argpartition(scores, -limit)[-limit:]
            found = places[some[np.argsort(-scores[some], kind="stable")]]
            if without:
                found = found[self.pictures["key"].take(found).to_numpy() != without]
            if by_item:
                _, first = np.unique(self.items[found], return_index=True)
                found = found[np.sort(first)]
            if len(found) >= k or limit >= len(scores):
                return found[:k]
            limit *= 4


class FileIndex:
    """An index in a file, as `VectorIndex` describes it."""

    def __init__(self, path: Path, *, to_read: bool) -> None:
        self._path = path
        self._rows: dict[str, _Rows] = {}
        self._reads = threading.Lock()
        with self._file("rw" if to_read else "rwc") as file:
            if not to_read and not file.execute("SELECT name FROM sqlite_master").fetchone():
                file.execute(f"PRAGMA application_id = {_APPLICATION}")
                file.execute(
                    "CREATE TABLE versions (model TEXT PRIMARY KEY, about TEXT NOT NULL, "
                    "filled INTEGER NOT NULL, answers INTEGER NOT NULL)"
                )
            if file.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
                raise UserError(
                    f"{path}: is not the file of an index, or one of an earlier release; remove it "
                    "and build the index again"
                )

    def current(self) -> Version | None:
        """See `VectorIndex`."""
        return self._version("answers", 1)

    def version(self, model: str) -> Version | None:
        """See `VectorIndex`."""
        return self._version("model", model)

    def begin(self, version: Version) -> Version:
        """See `VectorIndex`; every vector is looked at, whatever kind of index is asked for."""
        if version.settings.kind != "FLAT":
            logging.getLogger(__name__).warning(
                "%s: a file keeps no %s index; FLAT is used, which misses nothing (%s needs a "
                "Milvus server)",
                *(self._path, version.settings.kind, version.settings.kind),
            )
        version = dataclasses.replace(version, settings=IndexSettings())
        known = self.version(version.model)
        if known and known.dim != version.dim:
            raise UserError(
                f"{self._path}: this model's pictures are indexed with {known.dim} numbers each, "
                f"not {version.dim}; name another file for these, or remove this index"
            )
        new = dataclasses.replace(version, complete=False).to_json()
        with self._file() as file:
            file.execute(
                f"CREATE TABLE IF NOT EXISTS {_table(version)} (key TEXT PRIMARY KEY, picture "
                "TEXT, item TEXT, vertical TEXT, record INTEGER, embedding BLOB)"
            )
            file.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, 0, 0)", (version.model, new))
        return version

    def upsert(
        self, version: Version, pictures: Sequence[IndexedPicture], embeddings: np.ndarray
    ) -> None:
        """See `VectorIndex`."""
        check_embeddings(version, pictures, embeddings)
        rows = (
            (*_values_of(one), embedding.tobytes())
            for one, embedding in zip(pictures, np.asarray(embeddings, "<f4"))
        )
        with self._file() as file:
            file.executemany(
                f"INSERT OR REPLACE INTO {_table(version)} VALUES (?, ?, ?, ?, ?, ?)", rows
            )

    def delete(self, version: Version, keys: Sequence[str]) -> None:
        """See `VectorIndex`."""
        with self._file() as file:
            file.executemany(
                f"DELETE FROM {_table(version)} WHERE key = ?", ((key,) for key in keys)
            )

    def finish(self, version: Version) -> Version:
        """See `VectorIndex`."""
        with self._file() as file:
            counted = f"SELECT vertical, count(*) FROM {_table(version)} GROUP BY vertical"
            counts = dict(file.execute(counted).fetchall())
            version = dataclasses.replace(
                version,
                complete=True,
                pictures=sum(counts.values()),
                verticals=tuple(sorted(counts)),
            )
            file.execute(
                "UPDATE versions SET about = ?, filled = filled + 1 WHERE model = ?",
                (version.to_json(), version.model),
            )
        return version

    def switch(self, version: Version) -> None:
        """See `VectorIndex`."""
        check_complete(self.version(version.model), str(self._path), version.model)
        with self._file() as file:
            file.execute("UPDATE versions SET answers = model = ?", (version.model,))

    def keys(
        self,
        version: Version,
        *,
        of_dataset: bool = False,
        pictures: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """See `VectorIndex`."""
        conditions, named = [f"record >= {0 if of_dataset else -1}"], list[str]()
        if pictures is not None:
            conditions.append(f"(key {_LISTED} OR picture {_LISTED})")
            named += [json.dumps(list(pictures))] * 2
        if items is not None:
            conditions.append(f"item {_LISTED}")
            named.append(json.dumps(list(items)))
        with self._file() as file:
            asked = f"SELECT key FROM {_table(version)} WHERE {' AND '.join(conditions)}"
            found = file.execute(asked, named).fetchall()
        yield from (key for (key,) in found)

    def picture(self, version: Version, key: str) -> tuple[IndexedPicture, np.ndarray] | None:
        """See `VectorIndex`."""
        with self._file() as file:
            asked = f"SELECT * FROM {_table(version)} WHERE key = ?"
            row = file.execute(asked, (key,)).fetchone()
        return (IndexedPicture(*row[:-1]), np.frombuffer(row[-1], "<f4")) if row else None

    def search(
        self,
        version: Version,
        embedding: np.ndarray,
        k: int,
        *,
        vertical: str | Sequence[str] | None = None,
        by_item: bool = True,
        without: str = "",
    ) -> list[Hit]:
        """See `VectorIndex`."""
        rows = self._rows_of(version)
        verticals = (vertical,) if isinstance(vertical, str) else vertical
        query = np.asarray(embedding, np.float32)
        places = rows.nearest(query, k, verticals, by_item, without)
        distances = np.linalg.norm(rows.embeddings[places] - query, axis=1).tolist()
        pictures = rows.pictures.take(places).to_pylist()
        return [Hit(IndexedPicture(**one), far) for one, far in zip(pictures, distances)]

    def _rows_of(self, version: Version) -> _Rows:
        """Returns a version as it was when it was last filled, maybe by another process."""
        known = self._rows.get(version.model)
        with self._file() as file:
            filled = _filled(file, version)
        if known and known.filled == filled:
            return known
        # While one thread reads it anew, the others go on with what they have.
        if self._reads.acquire(blocking=known is None):
            try:
                known = self._rows.get(version.model)
                if known is None or known.filled != filled:
                    known = self._read(version)
                    # Of the versions before it one stays: searches of it may not have ended.
                    before = dict([*self._rows.items()][-1:])
                    self._rows = {**before, version.model: known}
            finally:
                self._reads.release()
        assert known is not None
        return known

    def _read(self, version: Version) -> _Rows:
        table = _table(version)
        with self._file() as file:
            filled = _filled(file, version)
            texts = [
                pa.table(list(map(list, zip(*some))), schema=_COLUMNS)
                for some in _pages(file, f"SELECT {', '.join(_FIELDS)} FROM {table} ORDER BY rowid")
            ]
            pictures = pa.concat_tables([_COLUMNS.empty_table(), *texts]).combine_chunks()
            verticals, numbers = _numbered(pictures["vertical"])
            order = np.argsort(numbers, kind="stable")
            place_of = np.empty_like(order)
            place_of[order] = np.arange(len(order))
            embeddings = np.empty((len(order), version.dim), np.float32)
            start = 0
            for some in _pages(file, f"SELECT embedding FROM {table} ORDER BY rowid"):
                vectors = np.frombuffer(b"".join(one for (one,) in some), "<f4")
                embeddings[place_of[start : start + len(some)]] = vectors.reshape(len(some), -1)
                start += len(some)
        pictures = pictures.take(order).combine_chunks()
        names, items = _numbered(pictures["item"])
        if "" in names:
            alone = items == names.index("")
            items[alone] = -1 - np.flatnonzero(alone)
        ends = np.cumsum(np.bincount(numbers, minlength=len(verticals))).tolist()
        return _Rows(
            filled,
            pictures,
            embeddings,
            np.einsum("nd,nd->n", embeddings, embeddings) / 2,
            items,
            dict(zip(verticals, zip([0, *ends], ends))),
        )

    def _version(self, column: str, value: object) -> Version | None:
        with self._file() as file:
            asked = f"SELECT about FROM versions WHERE {column} = ?"
            row = file.execute(asked, (value,)).fetchone()
        return Version.from_json(row[0]) if row else None

    @contextlib.contextmanager
    def _file(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """Opens the file for one transaction: threads may share no connection."""
        address = f"{self._path.resolve().as_uri()}?mode={mode}"
        try:
            opened = sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)
            with contextlib.closing(opened) as file, file:
                file.execute("BEGIN")
                yield file
        except sqlite3.Error as error:
            raise UserError(f"{self._path}: cannot be used as an index ({error})") from error


def _table(version: Version) -> str:
    return f'"pictures_{version.model[:32]}"'


def _filled(file: sqlite3.Connection, version: Version) -> int:
    row = file.execute("SELECT filled FROM versions WHERE model = ?", (version.model,)).fetchone()
    return row[0] if row else 0


def _pages(file: sqlite3.Connection, asked: str) -> Iterator[list[tuple]]:
    cursor = file.execute(asked)
    while page := cursor.fetchmany(_ROWS_AT_ONCE):
        yield page


def _numbered(texts: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Returns the texts that there are, and of each row the number of its own."""
    encoded = texts.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
