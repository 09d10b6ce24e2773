"""Image embeddings in an SQLite file, searched exhaustively.

A search multiplies a matrix in memory by the query, which takes about 20 ms for a million vectors
of 64 numbers: an in-process index needs no graph. SQLite does the rest: writes are atomic however
the process ends, and other processes can read in the meantime.
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

from apparel_embed.common.errors import UserError
from apparel_embed.common.locks import only_writer
from apparel_embed.search.index import (
    Hit,
    IndexAccess,
    IndexedImage,
    IndexSettings,
    VectorIndex,
    Version,
    check_complete,
    check_embeddings,
    check_filled,
)
from apparel_embed.search.memory import HIT_FIELDS, SearchedRows

# "appb": distinguishes index files of this format from other SQLite files.
_APPLICATION = 0x61707063
# A writer blocks readers only while it commits; readers block writers while they load a version.
_WAIT_SECONDS = 120
_ROWS_AT_ONCE = 10_000
_values_of = operator.attrgetter(*HIT_FIELDS)
_ROW = (*HIT_FIELDS, "embedding", "content")
_KEPT_EDITIONS = 10
# Passes any number of texts as one parameter of a statement.
_LISTED = "IN (SELECT value FROM json_each(?))"


@contextlib.contextmanager
def open_index(uri: str, access: IndexAccess, *, to_read: bool) -> Iterator[VectorIndex]:
    """See `index.open_index`; only one process at a time may open a file for writing."""
    del access
    path = Path(uri)
    with contextlib.nullcontext() if to_read else only_writer(path):
        yield FileIndex(path, to_read=to_read)


class FileIndex:
    """A `VectorIndex` in a file."""

    def __init__(self, path: Path, *, to_read: bool) -> None:
        self._path = path
        self._rows: dict[str, SearchedRows] = {}
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
                    f"{path}: not an index file, or one of an earlier release; remove it and build "
                    "the index again"
                )

    def current(self) -> Version | None:
        """See `VectorIndex`."""
        return self._version("answers", 1)

    def version(self, model: str) -> Version | None:
        """See `VectorIndex`."""
        return self._version("model", model)

    def begin(self, version: Version) -> Version:
        """See `VectorIndex`; searches are exhaustive, whatever kind of index is requested."""
        if version.settings.kind != "FLAT":
            logging.getLogger(__name__).warning(
                "%s: an index in a file cannot be %s; FLAT is used instead, which misses nothing "
                "(%s needs a Milvus server)",
                *(self._path, version.settings.kind, version.settings.kind),
            )
        known = self.version(version.model)
        index_by = version.settings.index_by or (known.settings.index_by if known else None)
        version = dataclasses.replace(version, settings=IndexSettings(index_by=index_by))
        if known and known.dim != version.dim:
            raise UserError(
                f"{self._path}: the index has embeddings of length {known.dim} for this model, "
                f"not {version.dim}; name another file, or remove this index"
            )
        marked = dataclasses.replace(known or version, filling=True).to_json()
        with self._file() as file:
            _make_tables(file, version)
            file.execute(
                "INSERT INTO versions VALUES (?, ?, 0, 0) ON CONFLICT (model) DO UPDATE SET about "
                "= excluded.about",
                (version.model, marked),
            )
        return version

    def upsert(
        self, version: Version, images: Sequence[IndexedImage], embeddings: np.ndarray
    ) -> None:
        """See `VectorIndex`."""
        check_embeddings(version, images, embeddings)
        with self._file() as file:
            _write(file, version, images, embeddings)

    def delete(self, version: Version, keys: Sequence[str]) -> None:
        """See `VectorIndex`."""
        with self._file() as file:
            _remove(file, version, keys)

    def finish(self, version: Version) -> Version:
        """See `VectorIndex`."""
        with self._file() as file:
            file.execute(f"DELETE FROM {_table(version, 'before')}")
            version = dataclasses.replace(version, complete=True, filling=False, edition=0)
            return _publish(file, version)

    def change(
        self,
        version: Version,
        images: Sequence[IndexedImage],
        embeddings: np.ndarray,
        removed: Sequence[str],
    ) -> Version:
        """See `VectorIndex`; the previous state of changed images is kept for ten editions."""
        check_embeddings(version, images, embeddings)
        touched = json.dumps(sorted({*(one.key for one in images), *removed}))
        table, before = _table(version), _table(version, "before")
        values = ", ".join(f"old.{name}" for name in _ROW[1:])
        with self._file() as file:
            version = _about(file, version)
            check_filled(version, str(self._path))
            edition = version.edition
            file.execute(
                f"INSERT INTO {before} SELECT ?, touched.value, {values} FROM json_each(?) AS "
                f"touched LEFT JOIN {table} AS old ON old.key = touched.value",
                (edition, touched),
            )
            file.execute(f"DELETE FROM {before} WHERE edition <= ?", (edition - _KEPT_EDITIONS,))
            _remove(file, version, removed)
            _write(file, version, images, embeddings)
            return _publish(file, dataclasses.replace(version, edition=edition + 1))

    def roll_back(self, version: Version, edition: int) -> Version:
        """See `VectorIndex`."""
        table, before, row = _table(version), _table(version, "before"), ", ".join(_ROW)
        with self._file() as file:
            version = _about(file, version)
            check_filled(version, str(self._path))
            kept = file.execute(f"SELECT min(edition) FROM {before}").fetchone()[0]
            least = version.edition if kept is None else kept
            if not least <= edition <= version.edition:
                raise UserError(
                    f"{self._path}: edition {edition} is not kept; expected {least} to "
                    f"{version.edition} (the current one). Nothing was changed"
                )
            if edition == version.edition:
                return version
            for one in range(version.edition - 1, edition - 1, -1):
                rows = f"FROM {before} WHERE edition = {one} AND embedding IS"
                file.execute(f"DELETE FROM {table} WHERE key IN (SELECT key {rows} NULL)")
                file.execute(f"INSERT OR REPLACE INTO {table} ({row}) SELECT {row} {rows} NOT NULL")
            file.execute(f"DELETE FROM {before} WHERE edition >= ?", (edition,))
            return _publish(file, dataclasses.replace(version, edition=edition))

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
        images: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """See `VectorIndex`."""
        conditions, named = [f"record >= {0 if of_dataset else -1}"], list[str]()
        if images is not None:
            conditions.append(f"(key {_LISTED} OR image {_LISTED})")
            named += [json.dumps(list(images))] * 2
        if items is not None:
            conditions.append(f"item {_LISTED}")
            named.append(json.dumps(list(items)))
        with self._file() as file:
            statement = f"SELECT key FROM {_table(version)} WHERE {' AND '.join(conditions)}"
            found = file.execute(statement, named).fetchall()
        yield from (key for (key,) in found)

    def find(
        self, version: Version, keys: Sequence[str], contents: Sequence[str] = ()
    ) -> list[tuple[IndexedImage, np.ndarray]]:
        """See `VectorIndex`."""
        named = {"key": json.dumps(list(keys))}
        with self._file() as file:
            if contents:
                named["content"] = json.dumps(list(contents))
            condition = " OR ".join(f"{name} {_LISTED}" for name in named)
            statement = f"SELECT * FROM {_table(version)} WHERE {condition}"
            rows = file.execute(statement, [*named.values()])
            count = len(HIT_FIELDS)
            return [
                (
                    IndexedImage(*row[:count], *row[count + 1 :]),
                    np.frombuffer(row[count], "<f4"),
                )
                for row in rows
            ]

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
        images = rows.images.take(places).to_pylist()
        return [Hit(IndexedImage(**one), far) for one, far in zip(images, distances)]

    def _rows_of(self, version: Version) -> SearchedRows:
        """Returns a version's rows, reloaded if any process has changed them."""
        known = self._rows.get(version.model)
        with self._file() as file:
            filled = _filled(file, version)
        if known and known.filled == filled:
            return known
        # While one thread reloads the rows, the others use the old ones.
        if self._reads.acquire(blocking=known is None):
            try:
                known = self._rows.get(version.model)
                if known is None or known.filled != filled:
                    known = self._read(version)
                    # Keep one earlier version: searches of it may still be running.
                    before = dict([*self._rows.items()][-1:])
                    self._rows = {**before, version.model: known}
            finally:
                self._reads.release()
        assert known is not None
        return known

    def _read(self, version: Version) -> SearchedRows:
        rows = f"FROM {_table(version)} ORDER BY rowid"
        with self._file() as file:
            return SearchedRows.read(
                _filled(file, version),
                _pages(file, f"SELECT {', '.join(HIT_FIELDS)} {rows}"),
                _pages(file, f"SELECT embedding {rows}"),
                dim=version.dim,
                index_by=_about(file, version).settings.index_by,
            )

    def _version(self, column: str, value: object) -> Version | None:
        with self._file() as file:
            statement = f"SELECT about FROM versions WHERE {column} = ?"
            row = file.execute(statement, (value,)).fetchone()
        return Version.from_json(row[0]) if row else None

    @contextlib.contextmanager
    def _file(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """Opens the file for one transaction: threads cannot share a connection."""
        address = f"{self._path.resolve().as_uri()}?mode={mode}"
        try:
            opened = sqlite3.connect(address, uri=True, timeout=_WAIT_SECONDS)
            with contextlib.closing(opened) as file, file:
                file.execute("BEGIN")
                yield file
        except sqlite3.Error as error:
            raise UserError(f"{self._path}: cannot be used as an index ({error})") from error


def _table(version: Version, kind: str = "images") -> str:
    return f'"{kind}_{version.model[:32]}"'


def _make_tables(file: sqlite3.Connection, version: Version) -> None:
    """Creates the tables of a version if they do not exist."""
    columns = (
        "key TEXT, image TEXT, item TEXT, vertical TEXT, record INTEGER, embedding BLOB, "
        "content TEXT NOT NULL DEFAULT ''"
    )
    table, before = _table(version), _table(version, "before")
    file.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns}, PRIMARY KEY (key))")
    # The state of images in an edition before it was changed; no embedding: the image was absent.
    file.execute(
        f"CREATE TABLE IF NOT EXISTS {before} (edition INTEGER, "
        f"{columns.replace(' NOT NULL', '')}, PRIMARY KEY (edition, key))"
    )


def _write(
    file: sqlite3.Connection,
    version: Version,
    images: Sequence[IndexedImage],
    embeddings: np.ndarray,
) -> None:
    rows = (
        (*_values_of(one), embedding.tobytes(), one.content)
        for one, embedding in zip(images, np.asarray(embeddings, "<f4"))
    )
    marks = ", ".join("?" * len(_ROW))
    file.executemany(
        f"INSERT OR REPLACE INTO {_table(version)} ({', '.join(_ROW)}) VALUES ({marks})", rows
    )


def _remove(file: sqlite3.Connection, version: Version, keys: Sequence[str]) -> None:
    file.executemany(f"DELETE FROM {_table(version)} WHERE key = ?", ((key,) for key in keys))


def _publish(file: sqlite3.Connection, version: Version) -> Version:
    """Updates a version's counts, marks it as changed for readers, and returns it."""
    counted = f"SELECT vertical, count(*) FROM {_table(version)} GROUP BY vertical"
    counts = dict(file.execute(counted).fetchall())
    version = dataclasses.replace(
        version, images=sum(counts.values()), verticals=tuple(sorted(counts))
    )
    file.execute(
        "UPDATE versions SET about = ?, filled = filled + 1 WHERE model = ?",
        (version.to_json(), version.model),
    )
    return version


def _about(file: sqlite3.Connection, version: Version) -> Version:
    statement = "SELECT about FROM versions WHERE model = ?"
    row = file.execute(statement, (version.model,)).fetchone()
    return Version.from_json(row[0]) if row else version


def _filled(file: sqlite3.Connection, version: Version) -> int:
    row = file.execute("SELECT filled FROM versions WHERE model = ?", (version.model,)).fetchone()
    return row[0] if row else 0


def _pages(file: sqlite3.Connection, statement: str) -> Iterator[list[tuple]]:
    cursor = file.execute(statement)
    while page := cursor.fetchmany(_ROWS_AT_ONCE):
        yield page
