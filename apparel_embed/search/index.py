"""Embeddings of pictures in Milvus: an embedded file, or a server by its address.

Every version of the model has a collection of its own, for distances between spaces mean nothing.
Which collection answers is said by one row of a small collection of versions, so that a switch
happens at once or not at all. (Milvus has aliases for that, but its embedded releases for Python
3.9 have none, and what a version was made of has to be kept somewhere anyway.)
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from apparel_embed.common.errors import UserError
from apparel_embed.search import milvus
from apparel_embed.search.fetching import nearest_groups
from apparel_embed.search.milvus import FIELDS, quote, told
from apparel_embed.search.version import Hit, IndexedPicture, Version, collection_name

# What Milvus returns of one search at most.
LARGEST_K = 16_384
_VERSIONS = "apparel_embed_versions"
_CURRENT = "current"
_ROWS_AT_ONCE = 1_000
_TALKATIVE = ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc._server", "faiss")


class VectorIndex:
    """An open index; safe to use from several threads.

    Args:
      uri: a file to be made or opened by Milvus Lite, which one process at a time may have open;
        or a server, `http://host:19530`.
      token: user and password, or API key, of a server.

    Raises:
      UserError: if it cannot be opened.

    Example:
      >>> with VectorIndex("runs/mine/index.db") as index:
      ...     version = index.current()  # None while nothing is indexed
      ...     hits = index.search(version, embedding, k=10, vertical="dress") if version else []
    """

    def __init__(self, uri: str, token: str = "") -> None:
        self._uri = uri
        # They log, with tracebacks, what is raised anyway or does not matter: Milvus Lite, a gRPC
        # server in this process, lacks calls that the client can do without.
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._is_file = "://" not in uri
        if self._is_file:
            milvus.check_file(Path(uri))
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        with told(uri, "cannot be opened; another process writes it: wait until it is done"):
            self._client = MilvusClient(uri, token=token)
            if not self._client.has_collection(_VERSIONS):
                milvus.create_versions(self._client, _VERSIONS)
            self._client.load_collection(_VERSIONS)
        self._loaded: set[str] = set()

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the index, so that another process may open its file."""
        self._client.close()
        if self._is_file:
            # The client leaves the server of the file running, and with it the file locked.
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._uri)

    def versions(self) -> list[Version]:
        """Returns all versions, complete or not, by their model's fingerprint."""
        rows = self._version_rows(f"name != {quote(_CURRENT)}")
        return sorted((milvus.version_of(row["about"]) for row in rows), key=lambda one: one.model)

    def current(self) -> Version | None:
        """Returns the version that answers; None before the first switch."""
        rows = self._version_rows(f"name == {quote(_CURRENT)}")
        return self.version(json.loads(rows[0]["about"])["model"]) if rows else None

    def version(self, model: str) -> Version | None:
        """Returns a model's version; None if there is none."""
        rows = self._version_rows(f"name == {quote(collection_name(model))}")
        return milvus.version_of(rows[0]["about"]) if rows else None

    def begin(self, version: Version) -> Version:
        """Makes a version that is not there yet, or goes on with one that is.

        Returns:
          The version as it is kept: a file has no HNSW, and takes FLAT instead.

        Raises:
          UserError: if it is there with another length or other settings.
        """
        if self._is_file and version.settings.kind == "HNSW":
            logging.getLogger(__name__).warning(
                "%s: a file keeps no HNSW index; FLAT is used, which misses nothing (HNSW needs a "
                "Milvus server)",
                self._uri,
            )
            settings = dataclasses.replace(version.settings, kind="FLAT")
            version = dataclasses.replace(version, settings=settings)
        known = self.version(version.model)
        if known and (known.dim, known.settings) != (version.dim, version.settings):
            raise UserError(
                f"{self._uri}: this model's pictures are indexed with {known.settings} and "
                f"{known.dim} numbers each, not {version.settings} and {version.dim}; drop that "
                "version first"
            )
        with told(self._uri):
            if not self._client.has_collection(version.collection):
                milvus.create_pictures(self._client, version)
        if not known:
            self._write_version(dataclasses.replace(version, complete=False))
        return version

    def upsert(
        self, model: str, pictures: Sequence[IndexedPicture], embeddings: np.ndarray
    ) -> None:
        """Adds pictures, or replaces those that have the same key.

        Args:
          model: fingerprint of the version's model.
          pictures: [n].
          embeddings: float [n, dim], of unit length.

        Raises:
          UserError: if an embedding is not of unit length, or a text too long.
        """
        version = self._known(model)
        if embeddings.shape != (len(pictures), version.dim):
            raise UserError(
                f"{self._uri}: embeddings of shape {embeddings.shape}; allowed is "
                f"{(len(pictures), version.dim)}"
            )
        lengths = np.linalg.norm(embeddings, axis=1)
        if not np.allclose(lengths, 1, atol=1e-3):
            worst = int(np.argmax(np.abs(np.nan_to_num(lengths) - 1)))
            raise UserError(
                f"{pictures[worst].picture}: its embedding has length {lengths[worst]:g}; "
                "allowed is 1"
            )
        rows = [
            {**milvus.row_of(one), "embedding": embedding.tolist()}
            for one, embedding in zip(pictures, np.asarray(embeddings, np.float32))
        ]
        with told(self._uri):
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                self._client.upsert(version.collection, rows[start : start + _ROWS_AT_ONCE])

    def delete(self, model: str, keys: Sequence[str]) -> None:
        """Removes pictures; a key that is not there is no error."""
        version = self._known(model)
        with told(self._uri):
            for start in range(0, len(keys), _ROWS_AT_ONCE):
                self._client.delete(version.collection, ids=list(keys[start:][:_ROWS_AT_ONCE]))

    def finish(self, version: Version) -> Version:
        """Writes all to disk and says that the version is complete.

        Args:
          version: with what is now true of its pictures; `pictures` and `verticals` are counted.
        """
        with told(self._uri):
            self._client.flush(version.collection)
        with told(self._uri):
            (counted,) = self._client.query(
                self._load(version),
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
            )
        pictures = counted["count(*)"]
        version = dataclasses.replace(
            version,
            complete=True,
            pictures=pictures,
            verticals=tuple(sorted(self._verticals(version))),
            settings=self._known(version.model).settings,
        )
        self._write_version(version)
        return version

    def switch(self, model: str) -> None:
        """Lets a version answer from now on.

        Raises:
          UserError: if there is no such version, or it is not complete.
        """
        if not self._known(model).complete:
            raise UserError(f"{self._uri}: model {model[:16]} is not indexed to the end; build it")
        self._write_row(_CURRENT, {"model": model})

    def drop(self, model: str) -> None:
        """Removes a version.

        Raises:
          UserError: if it is the one that answers.
        """
        version, current = self._known(model), self.current()
        if current and current.model == version.model:
            raise UserError(f"{self._uri}: model {model[:16]} answers; switch to another first")
        with told(self._uri):
            self._client.delete(_VERSIONS, ids=[version.collection])
            self._client.drop_collection(version.collection)
        self._loaded.discard(version.collection)

    def keys(
        self,
        model: str,
        *,
        of_dataset: bool = False,
        pictures: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Yields keys of pictures of a version, in any order.

        Args:
          model: fingerprint of the version's model.
          of_dataset: those of pictures of a prepared dataset only.
          pictures: those of these only, each named by its key, path or URI.
          items: those of these items only.
        """
        conditions = ["record >= 0"] if of_dataset else []
        if pictures is not None:
            named = [milvus.among(field, pictures) for field in ("key", "picture")]
            conditions.append(f"({' or '.join(named)})")
        if items is not None:
            conditions.append(milvus.among("item", items))
        for page in self._pages(self._known(model), " and ".join(conditions), ["key"]):
            yield from (row["key"] for row in page)

    def picture(self, version: Version, key: str) -> tuple[IndexedPicture, np.ndarray] | None:
        """Returns a picture and its embedding, float32 [dim]; None if it is not there."""
        collection = self._load(version)
        with told(self._uri):
            rows = self._client.query(
                collection,
                filter=f"key == {quote(key)}",
                output_fields=[*FIELDS, "embedding"],
                limit=1,
            )
        if not rows:
            return None
        return milvus.picture_of(rows[0]), np.asarray(rows[0]["embedding"], np.float32)

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
        """Finds the nearest pictures.

        Args:
          version: whose pictures; see `current`.
          embedding: float [dim], of unit length.
          k: how many hits, 1 to LARGEST_K.
          vertical: search in this one only, or in these.
          by_item: of every item only the nearest picture; one without an item stands for itself.
          without: key of a picture to leave out; "" for none.

        Returns:
          k hits, nearest first; fewer only if there are no more, whatever kind the index is of.
        """
        if not 1 <= k <= LARGEST_K:
            raise UserError(f"k is {k}; allowed is 1 to {LARGEST_K}")
        verticals = (vertical,) if isinstance(vertical, str) else vertical
        conditions = [milvus.among("vertical", verticals)] if verticals is not None else []
        conditions += [f"key != {quote(without)}"] if without else []

        def fetch(limit: int, found: Sequence[Hit], effort: int) -> list[Hit]:
            wanted = [*conditions, *milvus.excluded(found, by_item)]
            condition = " and ".join(one for one in wanted if one)
            parameters = version.settings.search_parameters(limit)
            if effort == len(parameters):
                return self._scan(version, embedding, limit, condition)
            return self._ask(version, embedding, limit, condition, parameters[effort])

        return nearest_groups(
            fetch, k, efforts=version.settings.efforts, by_item=by_item, most=LARGEST_K
        )

    def _verticals(self, version: Version) -> set[str]:
        pages = self._pages(version, "", ["vertical"])
        return {row["vertical"] for page in pages for row in page}

    def _ask(
        self,
        version: Version,
        embedding: np.ndarray,
        limit: int,
        condition: str,
        parameters: dict[str, int],
    ) -> list[Hit]:
        collection = self._load(version)
        with told(self._uri):
            (found,) = self._client.search(
                collection,
                data=[np.asarray(embedding, np.float32).tolist()],
                anns_field="embedding",
                limit=limit,
                filter=condition,
                output_fields=list(FIELDS),
                search_params={"metric_type": "L2", "params": parameters},
            )
        return milvus.hits_of(found)

    def _scan(
        self, version: Version, embedding: np.ndarray, limit: int, condition: str
    ) -> list[Hit]:
        """Looks at every picture itself, where a graph leads to too few."""
        hits: list[Hit] = []
        for page in self._pages(version, condition, [*FIELDS, "embedding"]):
            vectors = np.array([row["embedding"] for row in page], np.float32)
            distances = np.linalg.norm(vectors - embedding, axis=1).tolist()
            hits += map(Hit, map(milvus.picture_of, page), distances)
            hits = sorted(hits, key=lambda hit: hit.distance)[:limit]
        return hits

    def _pages(
        self, version: Version, condition: str, fields: Sequence[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields the rows of a version, in any order."""
        collection = self._load(version)
        with told(self._uri):
            pages = self._client.query_iterator(
                collection,
                filter=condition,
                batch_size=LARGEST_K,
                output_fields=list(fields),
                consistency_level="Strong",
            )
            try:
                while True:
                    page = pages.next()
                    if not page:
                        break
                    yield page
            finally:
                pages.close()

    def _known(self, model: str) -> Version:
        version = self.version(model)
        if version is None:
            raise UserError(f"{self._uri}: no version of model {model[:16]} is indexed here")
        return version

    def _load(self, version: Version) -> str:
        """Brings a version into memory and returns its collection's name."""
        if version.collection not in self._loaded:
            with told(self._uri):
                self._client.load_collection(version.collection)
            self._loaded.add(version.collection)
        return version.collection

    def _version_rows(self, condition: str) -> list[dict[str, Any]]:
        with told(self._uri):
            return list(
                self._client.query(
                    _VERSIONS,
                    filter=condition,
                    output_fields=["name", "about"],
                    limit=1_000,
                    consistency_level="Strong",
                )
            )

    def _write_version(self, version: Version) -> None:
        self._write_row(version.collection, dataclasses.asdict(version))

    def _write_row(self, name: str, about: dict[str, Any]) -> None:
        text = json.dumps(about)
        with told(self._uri):
            self._client.upsert(
                _VERSIONS, [{"name": name, "about": text, "unused": milvus.NO_VECTOR}]
            )
            self._client.flush(_VERSIONS)
