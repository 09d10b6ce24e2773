"""Image embeddings on a Milvus server.

Each version has its own collection, whose properties store the `Version`. An alias points to the
version that answers searches, so a switch is atomic.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import logging
import math
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.evaluation.items import ITEM
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
    nearest_groups,
)
from apparel_embed.search.milvus_rows import FIELDS, LONGEST, among, image_of, row_of

try:
    import grpc
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError as error:
    raise UserError(
        "an index on a Milvus server needs the package pymilvus: pip install "
        "'apparel_embed[milvus]'; an index in a file does not"
    ) from error

# Milvus's limit of results per search.
_LARGEST_K = 16_384
# Milvus's limit of candidates in a search of HNSW.
_LARGEST_EF = 32_768
_ABOUT = "apparel_embed"
_CURRENT = "apparel_embed_current"
_ROWS_AT_ONCE = 5_000
# If the server is down, searches fail instead of waiting.
_ANSWER_SECONDS = 10
_LOAD_SECONDS = 60
_WAIT_SECONDS = 1
_LOG_SECONDS = 30
_VERBOSE_LOGGERS = ("pymilvus", "pymilvus.milvus_client")


@contextlib.contextmanager
def open_index(uri: str, access: IndexAccess, *, to_read: bool) -> Iterator[VectorIndex]:
    """See `index.open_index`; a server allows any number of readers and writers."""
    del to_read
    with contextlib.closing(MilvusIndex(uri, access)) as index:
        yield index


class MilvusIndex:
    """A `VectorIndex` on a Milvus server."""

    def __init__(self, uri: str, access: IndexAccess) -> None:
        self._uri = uri
        # They log tracebacks of errors that are raised anyway.
        for name in _VERBOSE_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        where = urllib.parse.urlsplit(uri)
        if "@" in where.netloc:
            raise UserError("--index_uri: contains a user; pass it with --index_user instead")
        options = {
            "db_name": where.path.strip("/"),
            # Clients with the same alias share a connection, and one closes it for the others.
            "alias": uuid.uuid4().hex,
            "server_pem_path": "" if access.certificate else access.ca_file,
            "ca_pem_path": access.ca_file,
            "client_pem_path": access.certificate,
            "client_key_path": access.private_key,
        }
        if access.user:
            options |= {"user": access.user, "password": access.secret}
        else:
            options["token"] = access.secret
        self._loaded: set[str] = set()
        with self._errors_as_user_errors("cannot be reached"):
            address = f"{where.scheme}://{where.netloc}"
            self._client = MilvusClient(address, **options, timeout=_ANSWER_SECONDS)

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def current(self) -> Version | None:
        """See `VectorIndex`."""
        return self._version(_CURRENT)

    def version(self, model: str) -> Version | None:
        """See `VectorIndex`."""
        return self._version(_collection(model))

    def begin(self, version: Version) -> Version:
        """See `VectorIndex`."""
        if version.settings.index_by == ITEM:
            raise UserError(f"{self._uri}: --index_by=item needs an index in a file")
        settings = dataclasses.replace(version.settings, index_by=None)
        version = dataclasses.replace(version, settings=settings)
        known = self.version(version.model)
        if known and (known.dim, known.settings) != (version.dim, version.settings):
            raise UserError(
                f"{self._uri}: the index has {known.settings} and embeddings of length {known.dim} "
                f"for this model, not {version.settings} and {version.dim}; name another server, "
                "or remove this index"
            )
        collection = _collection(version.model)
        if not self._call("has_collection", collection):
            self._create(collection, version.dim)
        # Check each step separately: the process may have been killed after any of them.
        if not self._call("list_indexes", collection):
            self._create_index(collection, version.settings)
        self._save(dataclasses.replace(known or version, filling=True))
        return version

    def upsert(
        self, version: Version, images: Sequence[IndexedImage], embeddings: np.ndarray
    ) -> None:
        """See `VectorIndex`."""
        check_embeddings(version, images, embeddings)
        # Of rows with the same key in one request, a server may keep any.
        by_key = {
            one.key: {**row_of(one), "embedding": embedding.tolist()}
            for one, embedding in zip(images, np.asarray(embeddings, np.float32))
        }
        rows = list(by_key.values())
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            self._call("upsert", _collection(version.model), rows[start : start + _ROWS_AT_ONCE])

    def delete(self, version: Version, keys: Sequence[str]) -> None:
        """See `VectorIndex`."""
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            some = list(keys[start : start + _ROWS_AT_ONCE])
            self._call("delete", _collection(version.model), ids=some)

    def finish(self, version: Version) -> Version:
        """See `VectorIndex`; waits until the server has built its graph or clusters."""
        collection = _collection(version.model)
        # Only once per fill: servers allow one flush in ten seconds.
        self._call("flush", collection)
        if version.settings.kind != "FLAT":
            self._wait_until_indexed(collection)
        verticals = [row["vertical"] for row in self._every(version, "", ["vertical"])]
        version = dataclasses.replace(
            version,
            complete=True,
            filling=False,
            images=len(verticals),
            verticals=tuple(sorted(set(verticals))),
        )
        self._save(version)
        return version

    def change(
        self,
        version: Version,
        images: Sequence[IndexedImage],
        embeddings: np.ndarray,
        removed: Sequence[str],
    ) -> Version:
        """See `VectorIndex`; if killed, repeating the call completes the change."""
        check_filled(self.version(version.model) or version, self._uri)
        self.upsert(version, images, embeddings)
        self.delete(version, removed)
        return self.finish(version)

    def roll_back(self, version: Version, edition: int) -> Version:
        """See `VectorIndex`; servers keep no editions."""
        raise UserError(f"{self._uri}: servers keep no editions; only an index in a file does")

    def switch(self, version: Version) -> None:
        """See `VectorIndex`."""
        check_complete(self.version(version.model), self._uri, version.model)
        change = "alter_alias" if self._call("has_collection", _CURRENT) else "create_alias"
        self._call(change, _collection(version.model), _CURRENT)

    def keys(
        self,
        version: Version,
        *,
        of_dataset: bool = False,
        images: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """See `VectorIndex`."""
        conditions = ["record >= 0"] if of_dataset else []
        if images is not None:
            conditions.append(f"({among('key', images)} or {among('image', images)})")
        if items is not None:
            conditions.append(among("item", items))
        for row in self._every(version, " and ".join(conditions), ["key"]):
            yield row["key"]

    def find(
        self, version: Version, keys: Sequence[str], contents: Sequence[str] = ()
    ) -> list[tuple[IndexedImage, np.ndarray]]:
        """See `VectorIndex`."""
        found = {}
        for field, texts in (("key", keys), ("content", contents)):
            for start in range(0, len(texts), _ROWS_AT_ONCE):
                some = among(field, texts[start : start + _ROWS_AT_ONCE])
                for row in self._every(version, some, [*FIELDS, "embedding"]):
                    vector = np.asarray(row["embedding"], np.float32)
                    found[row["key"]] = image_of(row), vector
        return list(found.values())

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
        conditions = [among("vertical", verticals)] if verticals is not None else []

        def fetch(limit: int, unwanted: Sequence[Hit], effort: int) -> list[Hit]:
            items = [hit.image.item for hit in unwanted if by_item and hit.image.item]
            keys = [hit.image.key for hit in unwanted if not (by_item and hit.image.item)]
            keys += [without] if without else []
            others = [among(*one, "not in") for one in (("item", items), ("key", keys)) if one[1]]
            condition = " and ".join([*conditions, *others])
            parameters = _search_parameters(version.settings, limit)[effort]
            return self._nearest(version, embedding, limit, condition, parameters)

        efforts = len(_search_parameters(version.settings, 1))
        # Above this limit, filtering items out is faster than fetching more images.
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
        """Returns the nearest images that satisfy a condition, nearest first."""
        if parameters is None:
            rows = self._every(version, condition, [*FIELDS, "embedding"])
            hits = (Hit(image_of(row), math.dist(row["embedding"], embedding)) for row in rows)
            return heapq.nsmallest(limit, hits, key=lambda hit: hit.distance)
        (found,) = self._call(
            "search",
            self._load(version),
            data=[np.asarray(embedding, np.float32).tolist()],
            anns_field="embedding",
            limit=limit,
            filter=condition,
            output_fields=list(FIELDS),
            search_params={"metric_type": "L2", "params": parameters},
            timeout=_ANSWER_SECONDS,
        )
        # Milvus returns squared distances.
        return [
            Hit(image_of({**one["entity"], "key": one["key"]}), max(one["distance"], 0.0) ** 0.5)
            for one in found
        ]

    def _every(
        self, version: Version, condition: str, fields: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        """Yields the rows of a version, in any order."""
        collection = self._load(version)
        with self._errors_as_user_errors():
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
        """Loads a version into the server's memory and returns the name of its collection."""
        collection = _collection(version.model)
        if collection not in self._loaded:
            self._call("load_collection", collection, timeout=_LOAD_SECONDS)
            self._loaded.add(collection)
        return collection

    def _wait_until_indexed(self, collection: str) -> None:
        """Waits for the server to build its index: before that, searches miss a quarter."""
        logged = time.monotonic()
        while True:
            state = self._call("describe_index", collection, "embedding")
            if state["indexed_rows"] >= state["total_rows"]:
                return
            if time.monotonic() - logged > _LOG_SECONDS:
                logged = time.monotonic()
                message = "%s: the server has indexed %d of %d rows"
                logging.getLogger(__name__).info(
                    message, self._uri, state["indexed_rows"], state["total_rows"]
                )
            time.sleep(_WAIT_SECONDS)

    def _version(self, name: str) -> Version | None:
        """Returns the version of a collection or alias; None if there is none."""
        if not self._call("has_collection", name, timeout=_ANSWER_SECONDS):
            return None
        about = self._call("describe_collection", name, timeout=_ANSWER_SECONDS)["properties"]
        try:
            return Version.from_json(about[_ABOUT]) if _ABOUT in about else None
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{self._uri}: collection {name} was written by another release; drop it, then "
                "fill the index again"
            ) from error

    def _save(self, version: Version) -> None:
        collection = _collection(version.model)
        # Twice: after a restart, Milvus 2.3 has lost the last change of a collection.
        for _ in range(2):
            self._call("alter_collection_properties", collection, {_ABOUT: version.to_json()})

    def _create(self, collection: str, dim: int) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, max_length=32, is_primary=True)
        for name, longest in LONGEST.items():
            schema.add_field(name, DataType.VARCHAR, max_length=longest)
        schema.add_field("record", DataType.INT64)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
        self._call("create_collection", collection, schema=schema, consistency_level="Session")

    def _create_index(self, collection: str, settings: IndexSettings) -> None:
        parameters = {
            "FLAT": {},
            "IVF_FLAT": {"nlist": settings.ivf_lists},
            "HNSW": {"M": settings.hnsw_m, "efConstruction": settings.hnsw_ef_construction},
        }
        kind = settings.kind
        index = self._client.prepare_index_params()
        index.add_index("embedding", index_type=kind, metric_type="L2", params=parameters[kind])
        self._call("create_index", collection, index)

    def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        with self._errors_as_user_errors():
            return getattr(self._client, method)(*arguments, **named)

    @contextlib.contextmanager
    def _errors_as_user_errors(self, hint: str = "the index fails") -> Iterator[None]:
        """Turns errors of Milvus into a UserError of one line."""
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            # If the server was restarted, it has to load the collections again.
            self._loaded.clear()
            message = error.message if isinstance(error, MilvusException) else error.details()
            raise UserError(f"{self._uri}: {hint} ({one_line(message)})") from error


def _search_parameters(settings: IndexSettings, limit: int) -> list[dict[str, int] | None]:
    """Returns Milvus's search parameters for `limit` images, in order of increasing effort.

    None means to compare with every image: a graph does not always reach all of them.
    """
    if settings.kind == "HNSW":
        return [{"ef": max(settings.hnsw_ef, limit)}, {"ef": _LARGEST_EF}, None]
    if settings.kind == "IVF_FLAT":
        probes = min(settings.ivf_probes, settings.ivf_lists)
        return [{"nprobe": probes}, {"nprobe": settings.ivf_lists}]
    return [{}]


def _collection(model: str) -> str:
    return f"images_{model[:32]}"
