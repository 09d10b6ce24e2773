"""Embeddings of images in Milvus: an embedded file, or a server by its address.

Every version of the model has a collection of its own. Which collection answers is said by one row
of a small collection of versions, so that a switch happens at once or not at all. (Milvus has
aliases for that, but its embedded releases for Python 3.9 have none, and what a version was made of
has to be kept somewhere anyway. Its own search by groups misses rows in a file.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import json
import logging
import math
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.search.index import (
    Hit,
    IndexedPicture,
    IndexSettings,
    VectorIndex,
    Version,
    check_embeddings,
    nearest_groups,
)

# What Milvus returns of one search at most.
_LARGEST_K = 16_384
# Most candidates that Milvus takes in a search of HNSW.
_LARGEST_EF = 32_768
_VERSIONS = "apparel_embed_versions"
_CURRENT = "current"
_ROWS_AT_ONCE = 1_000
_TALKATIVE = ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc._server", "faiss")
_FIELDS = tuple(field.name for field in dataclasses.fields(IndexedPicture))
# Milvus's own limit of a text, and ours, in bytes.
_LONGEST_TEXT = 65_535
_LONGEST = {"picture": 4_096, "item": 1_024, "vertical": 1_024}
# Milvus wants a vector in every collection; that of versions needs none.
_NO_VECTOR = [0.0, 0.0]


@contextlib.contextmanager
def open_index(uri: str, token: str = "", *, to_read: bool = False) -> Iterator[VectorIndex]:
    """See `index.open_index`. Milvus Lite locks a file for one process: readers open a copy."""
    with contextlib.ExitStack() as stack:
        if to_read and "://" not in uri:
            prefix = "apparel_embed_index_"
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
            uri = _copy(uri, Path(directory) / "index.db")
        yield stack.enter_context(contextlib.closing(MilvusIndex(uri, token)))


class MilvusIndex:
    """An open index, in a file or of a server, as `VectorIndex` describes it."""

    def __init__(self, uri: str, token: str) -> None:
        self._uri = uri
        # They log, with tracebacks, what is raised anyway or does not matter: Milvus Lite, a gRPC
        # server in this process, lacks calls that the client can do without.
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._is_file = "://" not in uri
        if self._is_file:
            _check_file(Path(uri))
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        with self._told("cannot be opened; another process writes it: wait until it is done"):
            self._client = MilvusClient(uri, token=token)
            if not self._client.has_collection(_VERSIONS):
                texts = {"name": 64, "about": _LONGEST_TEXT}
                self._create(_VERSIONS, texts, ("unused", len(_NO_VECTOR)), "", IndexSettings())
            self._client.load_collection(_VERSIONS)
        self._loaded: set[str] = set()

    def close(self) -> None:
        """Closes the index, so that another process may open its file."""
        self._client.close()
        if self._is_file:
            # The client leaves the server of the file running, and with it the file locked.
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._uri)

    def current(self) -> Version | None:
        """See `VectorIndex`."""
        about = self._about(_CURRENT)
        return self.version(about["model"]) if about else None

    def version(self, model: str) -> Version | None:
        """See `VectorIndex`."""
        about = self._about(_collection(model))
        if not about:
            return None
        about["settings"] = IndexSettings(**about["settings"])
        about["verticals"] = tuple(about["verticals"])
        return Version(**about)

    def begin(self, version: Version) -> Version:
        """See `VectorIndex`; a file has no HNSW, and takes FLAT instead."""
        if self._is_file and version.settings.kind == "HNSW":
            said = "a file keeps no HNSW index; FLAT is used, which misses nothing"
            logging.getLogger(__name__).warning("%s: %s (HNSW needs a server)", self._uri, said)
            settings = dataclasses.replace(version.settings, kind="FLAT")
            version = dataclasses.replace(version, settings=settings)
        known = self.version(version.model)
        if known and (known.dim, known.settings) != (version.dim, version.settings):
            raise UserError(
                f"{self._uri}: this model's pictures are indexed with {known.settings} and "
                f"{known.dim} numbers each, not {version.settings} and {version.dim}; name another "
                "file or server for these, or remove this index"
            )
        collection = _collection(version.model)
        if not self._ask("has_collection", collection):
            texts = {"key": 32, **_LONGEST}
            vector = ("embedding", version.dim)
            self._create(collection, texts, vector, "record", version.settings)
        if not known:
            self._write_about(collection, dataclasses.replace(version, complete=False))
        return version

    def upsert(
        self, version: Version, pictures: Sequence[IndexedPicture], embeddings: np.ndarray
    ) -> None:
        """See `VectorIndex`."""
        check_embeddings(version, pictures, embeddings)
        rows = [
            {**_row_of(one), "embedding": embedding.tolist()}
            for one, embedding in zip(pictures, np.asarray(embeddings, np.float32))
        ]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._ask("upsert", _collection(version.model), rows[start : start + _ROWS_AT_ONCE])

    def delete(self, version: Version, keys: Sequence[str]) -> None:
        """See `VectorIndex`."""
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            some = list(keys[start : start + _ROWS_AT_ONCE])
            self._ask("delete", _collection(version.model), ids=some)

    def finish(self, version: Version) -> Version:
        """See `VectorIndex`."""
        collection = _collection(version.model)
        self._ask("flush", collection)
        verticals = [row["vertical"] for row in self._rows(version, "", ["vertical"])]
        version = dataclasses.replace(
            version,
            complete=True,
            pictures=len(verticals),
            verticals=tuple(sorted(set(verticals))),
        )
        self._write_about(collection, version)
        return version

    def switch(self, version: Version) -> None:
        """See `VectorIndex`."""
        known = self.version(version.model)
        if not (known and known.complete):
            raise UserError(
                f"{self._uri}: model {version.model[:16]} is not indexed to the end; build it"
            )
        self._write_about(_CURRENT, {"model": version.model})

    def keys(
        self,
        version: Version,
        *,
        of_dataset: bool = False,
        pictures: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """See `VectorIndex`."""
        conditions = ["record >= 0"] if of_dataset else []
        if pictures is not None:
            conditions.append(f"({_among('key', pictures)} or {_among('picture', pictures)})")
        if items is not None:
            conditions.append(_among("item", items))
        for row in self._rows(version, " and ".join(conditions), ["key"]):
            yield row["key"]

    def picture(self, version: Version, key: str) -> tuple[IndexedPicture, np.ndarray] | None:
        """See `VectorIndex`."""
        fields, condition = [*_FIELDS, "embedding"], _among("key", [key])
        rows = self._ask(
            "query", self._load(version), filter=condition, output_fields=fields, limit=1
        )
        if not rows:
            return None
        return _picture_of(rows[0]), np.asarray(rows[0]["embedding"], np.float32)

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
        if not 1 <= k <= _LARGEST_K:
            raise UserError(f"k is {k}; expected 1 to {_LARGEST_K}")
        verticals = [vertical] if isinstance(vertical, str) else vertical
        conditions = [_among("vertical", verticals)] if verticals is not None else []

        def fetch(limit: int, unwanted: Sequence[Hit], effort: int) -> list[Hit]:
            items = [hit.picture.item for hit in unwanted if by_item and hit.picture.item]
            keys = [hit.picture.key for hit in unwanted if not (by_item and hit.picture.item)]
            keys += [without] if without else []
            others = [_among(*one, "not in") for one in (("item", items), ("key", keys)) if one[1]]
            condition = " and ".join([*conditions, *others])
            parameters = _search_parameters(version.settings, limit)[effort]
            return self._nearest(version, embedding, limit, condition, parameters)

        efforts = len(_search_parameters(version.settings, 1))
        # Beyond, to leave items out by a filter is faster than a longer answer.
        most = min(max(1_000, 4 * k), _LARGEST_K)
        return nearest_groups(fetch, k, efforts=efforts, by_item=by_item, most=most)

    def _nearest(
        self,
        version: Version,
        embedding: np.ndarray,
        limit: int,
        condition: str,
        parameters: dict[str, int] | None,
    ) -> list[Hit]:
        """Returns the nearest images of those that fulfil a condition, nearest first."""
        if parameters is None:
            rows = self._rows(version, condition, [*_FIELDS, "embedding"])
            hits = (Hit(_picture_of(row), math.dist(row["embedding"], embedding)) for row in rows)
            return heapq.nsmallest(limit, hits, key=lambda hit: hit.distance)
        (found,) = self._ask(
            "search",
            self._load(version),
            data=[np.asarray(embedding, np.float32).tolist()],
            anns_field="embedding",
            limit=limit,
            filter=condition,
            output_fields=list(_FIELDS),
            search_params={"metric_type": "L2", "params": parameters},
        )
        # Milvus gives squared distances.
        return [
            Hit(_picture_of({**one["entity"], "key": one["key"]}), max(one["distance"], 0.0) ** 0.5)
            for one in found
        ]

    def _rows(
        self, version: Version, condition: str, fields: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """Yields the rows of a version, in any order."""
        collection = self._load(version)
        with self._told():
            pages = self._client.query_iterator(
                collection,
                filter=condition,
                batch_size=_LARGEST_K,
                output_fields=list(fields),
                consistency_level="Strong",
            )
            with contextlib.closing(pages):
                while page := pages.next():
                    yield from page

    def _load(self, version: Version) -> str:
        """Brings a version into memory and returns its collection's name."""
        collection = _collection(version.model)
        if collection not in self._loaded:
            self._ask("load_collection", collection)
            self._loaded.add(collection)
        return collection

    def _about(self, name: str) -> dict[str, Any]:
        """Returns what the collection of versions says by a name; {} if nothing."""
        asked = {"filter": _among("name", [name]), "output_fields": ["about"], "limit": 1}
        rows = self._ask("query", _VERSIONS, **asked, consistency_level="Strong")
        return json.loads(rows[0]["about"]) if rows else {}

    def _write_about(self, name: str, about: Version | dict[str, Any]) -> None:
        text = json.dumps(about if isinstance(about, dict) else dataclasses.asdict(about))
        self._ask("upsert", _VERSIONS, [{"name": name, "about": text, "unused": _NO_VECTOR}])
        self._ask("flush", _VERSIONS)

    def _create(
        self,
        collection: str,
        texts: dict[str, int],
        vector: tuple[str, int],
        number: str,
        settings: IndexSettings,
    ) -> None:
        """Makes a collection of texts, the first of which is the key, a vector and a number."""
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        for place, (name, longest) in enumerate(texts.items()):
            schema.add_field(name, DataType.VARCHAR, max_length=longest, is_primary=place == 0)
        if number:
            schema.add_field(number, DataType.INT64)
        schema.add_field(vector[0], DataType.FLOAT_VECTOR, dim=vector[1])
        parameters = {
            "FLAT": {},
            "IVF_FLAT": {"nlist": settings.ivf_lists},
            "HNSW": {"M": settings.hnsw_m, "efConstruction": settings.hnsw_ef_construction},
        }
        kind = settings.kind
        index = self._client.prepare_index_params()
        index.add_index(vector[0], index_type=kind, metric_type="L2", params=parameters[kind])
        self._ask("create_collection", collection, schema=schema, index_params=index)

    def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        with self._told():
            return getattr(self._client, method)(*arguments, **named)

    @contextlib.contextmanager
    def _told(self, hint: str = "the index fails") -> Iterator[None]:
        """Turns what Milvus raises into one line."""
        try:
            yield
        except MilvusException as error:
            raise UserError(f"{self._uri}: {hint} ({one_line(error.message)})") from error


def _search_parameters(settings: IndexSettings, limit: int) -> list[dict[str, int] | None]:
    """Returns Milvus's parameters of a search for some images, by growing effort.

    None is to look at every image itself: nothing makes a graph lead everywhere.
    """
    if settings.kind == "HNSW":
        return [{"ef": max(settings.hnsw_ef, limit)}, {"ef": _LARGEST_EF}, None]
    if settings.kind == "IVF_FLAT":
        probes = min(settings.ivf_probes, settings.ivf_lists)
        return [{"nprobe": probes}, {"nprobe": settings.ivf_lists}]
    return [{}]


def _collection(model: str) -> str:
    return f"pictures_{model[:32]}"


def _among(field: str, texts: Sequence[str], operator: str = "in") -> str:
    """Returns the condition that a field is one of some texts, whatever is in these."""
    return f"{field} {operator} {json.dumps(list(texts), ensure_ascii=False)}"


def _picture_of(row: dict[str, Any]) -> IndexedPicture:
    return IndexedPicture(**{name: row[name] for name in _FIELDS})


def _row_of(picture: IndexedPicture) -> dict[str, Any]:
    for name, most in _LONGEST.items():
        length = len(getattr(picture, name).encode("utf-8"))
        if length > most:
            raise UserError(
                f"{picture.picture[:200]}: {name} has {length} bytes; expected at most {most}"
            )
    return dataclasses.asdict(picture)


def _copy(uri: str, copy: Path) -> str:
    """Copies the file of an index while others may write to it; returns the copy's path."""
    try:
        file = f"{Path(uri).resolve().as_uri()}?mode=ro"
        with (
            contextlib.closing(sqlite3.connect(file, uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    except sqlite3.Error as error:
        raise UserError(
            f"{uri}: cannot be read as an index of this Milvus Lite ({error}); one made by "
            "another release is to be removed and built again"
        ) from error
    return str(copy)


def _check_file(path: Path) -> None:
    """Checks what Milvus Lite says nothing clear about."""
    if path.is_dir():
        raise UserError(
            f"{path}: is a directory, not a file of this Milvus Lite; an index made by another "
            "release is to be removed and built again"
        )
    if not re.fullmatch(r"[a-zA-Z0-9.\-_]+\.db", path.name):
        raise UserError(
            f"{path}: no name for the file of an index; expected a to z, 0 to 9, '.', '-' and "
            "'_', with '.db' at the end"
        )
