"""Embeddings of pictures in Milvus: an embedded file, or a server by its address.

Every version of the model has a collection of its own, for distances between spaces mean nothing.
Which collection answers is said by one row of a small collection of versions, so that a switch
happens at once or not at all. (Milvus has aliases for that, but its embedded releases for Python
3.9 have none, and what a version was made of has to be kept somewhere anyway.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from apparel_embed.errors import UserError
from apparel_embed.search.version import (
    Hit,
    IndexedPicture,
    IndexSettings,
    Version,
    collection_name,
)
from apparel_embed.wording import one_line

# What Milvus returns of one search at most.
LARGEST_K = 16_384
# Milvus's own limit of a text.
_LONGEST_TEXT = 65_535
_LONGEST_PICTURE = 4_096
_LONGEST_NAME = 1_024
_VERSIONS = "apparel_embed_versions"
_CURRENT = "current"
_ROWS_AT_ONCE = 1_000
# Milvus Lite looks through all pictures for every page.
_KEYS_AT_ONCE = LARGEST_K
_TALKATIVE = ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc._server", "faiss")
# Milvus wants a vector in every collection; that of versions needs none.
_NO_VECTOR = [0.0, 0.0]


def quote(text: str) -> str:
    """Returns a text as a literal of Milvus's filter language, whatever is in it."""
    return json.dumps(text, ensure_ascii=False)


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
        if "://" not in uri:
            Path(uri).parent.mkdir(parents=True, exist_ok=True)
        with _told(uri, "cannot be opened; is another process using it?"):
            self._client = MilvusClient(uri, token=token)
            if not self._client.has_collection(_VERSIONS):
                self._create_versions()
            self._client.load_collection(_VERSIONS)
        self._loaded: set[str] = set()

    def __enter__(self) -> VectorIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the index, so that another process may open its file."""
        self._client.close()
        if "://" not in self._uri:
            # The client leaves the server of the file running, and with it the file locked.
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self._uri)

    def versions(self) -> list[Version]:
        """Returns all versions, complete or not, by their model's fingerprint."""
        rows = self._version_rows(f"name != {quote(_CURRENT)}")
        return sorted((_version(row["about"]) for row in rows), key=lambda one: one.model)

    def current(self) -> Version | None:
        """Returns the version that answers; None before the first switch."""
        rows = self._version_rows(f"name == {quote(_CURRENT)}")
        return self.version(json.loads(rows[0]["about"])["model"]) if rows else None

    def version(self, model: str) -> Version | None:
        """Returns a model's version; None if there is none."""
        rows = self._version_rows(f"name == {quote(collection_name(model))}")
        return _version(rows[0]["about"]) if rows else None

    def begin(self, version: Version) -> None:
        """Makes a version that is not there yet, or goes on with one that is.

        Raises:
          UserError: if it is there with another length or other settings.
        """
        known = self.version(version.model)
        if known and (known.dim, known.settings) != (version.dim, version.settings):
            raise UserError(
                f"{self._uri}: this model's pictures are indexed with {known.settings} and "
                f"{known.dim} numbers each, not {version.settings} and {version.dim}; drop that "
                "version first"
            )
        with _told(self._uri):
            if not self._client.has_collection(version.collection):
                self._create_pictures(version)
        if not known:
            self._write_version(dataclasses.replace(version, complete=False))

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
            {**_checked(one), "embedding": embedding.tolist()}
            for one, embedding in zip(pictures, np.asarray(embeddings, np.float32))
        ]
        with _told(self._uri):
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                self._client.upsert(version.collection, rows[start : start + _ROWS_AT_ONCE])

    def delete(self, model: str, keys: Sequence[str]) -> None:
        """Removes pictures; a key that is not there is no error."""
        version = self._known(model)
        with _told(self._uri):
            for start in range(0, len(keys), _ROWS_AT_ONCE):
                self._client.delete(version.collection, ids=list(keys[start:][:_ROWS_AT_ONCE]))

    def finish(self, version: Version) -> Version:
        """Writes all to disk and says that the version is complete.

        Args:
          version: with what is now true of its pictures; `pictures` is counted.
        """
        with _told(self._uri):
            self._client.flush(version.collection)
        with _told(self._uri):
            (counted,) = self._client.query(
                self._load(version),
                filter="",
                output_fields=["count(*)"],
                consistency_level="Strong",
            )
        pictures = counted["count(*)"]
        version = dataclasses.replace(version, complete=True, pictures=pictures)
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
        with _told(self._uri):
            self._client.delete(_VERSIONS, ids=[version.collection])
            self._client.drop_collection(version.collection)
        self._loaded.discard(version.collection)

    def keys(self, model: str) -> Iterator[str]:
        """Yields the keys of all pictures of a version, in any order."""
        collection = self._load(self._known(model))
        with _told(self._uri):
            pages = self._client.query_iterator(
                collection, filter="", batch_size=_KEYS_AT_ONCE, output_fields=["key"]
            )
            try:
                while True:
                    page = pages.next()
                    if not page:
                        break
                    yield from (row["key"] for row in page)
            finally:
                pages.close()

    def picture(self, version: Version, key: str) -> tuple[IndexedPicture, np.ndarray] | None:
        """Returns a picture and its embedding, float32 [dim]; None if it is not there."""
        collection = self._load(version)
        with _told(self._uri):
            rows = self._client.query(
                collection,
                filter=f"key == {quote(key)}",
                output_fields=[*_FIELDS, "embedding"],
                limit=1,
            )
        if not rows:
            return None
        return _picture(rows[0]), np.asarray(rows[0]["embedding"], np.float32)

    def search(
        self,
        version: Version,
        embedding: np.ndarray,
        k: int,
        *,
        vertical: str | None = None,
        by_item: bool = True,
        without: str = "",
    ) -> list[Hit]:
        """Finds the nearest pictures.

        Args:
          version: whose pictures; see `current`.
          embedding: float [dim], of unit length.
          k: how many hits, 1 to LARGEST_K.
          vertical: search in this one only.
          by_item: of every item only the nearest picture.
          without: key of a picture to leave out; "" for none.

        Returns:
          At most k hits, nearest first.
        """
        if not 1 <= k <= LARGEST_K:
            raise UserError(f"k is {k}; allowed is 1 to {LARGEST_K}")
        conditions = [f"vertical == {quote(vertical)}"] if vertical is not None else []
        conditions += [f"key != {quote(without)}"] if without else []
        collection = self._load(version)
        with _told(self._uri):
            (found,) = self._client.search(
                collection,
                data=[np.asarray(embedding, np.float32).tolist()],
                anns_field="embedding",
                limit=k,
                filter=" and ".join(conditions),
                output_fields=list(_FIELDS),
                search_params={
                    "metric_type": "L2",
                    "params": version.settings.search_parameters(k),
                },
                **({"group_by_field": "item"} if by_item else {}),
            )
        # Milvus gives squared distances.
        hits = [
            Hit(_picture({**one["entity"], "key": one["key"]}), max(one["distance"], 0.0) ** 0.5)
            for one in found
        ]
        return sorted(hits, key=lambda hit: (hit.distance, hit.picture.key))

    def _known(self, model: str) -> Version:
        version = self.version(model)
        if version is None:
            raise UserError(f"{self._uri}: no version of model {model[:16]} is indexed here")
        return version

    def _load(self, version: Version) -> str:
        """Brings a version into memory and returns its collection's name."""
        if version.collection not in self._loaded:
            with _told(self._uri):
                self._client.load_collection(version.collection)
            self._loaded.add(version.collection)
        return version.collection

    def _version_rows(self, condition: str) -> list[dict[str, Any]]:
        with _told(self._uri):
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
        with _told(self._uri):
            self._client.upsert(_VERSIONS, [{"name": name, "about": text, "unused": _NO_VECTOR}])
            self._client.flush(_VERSIONS)

    def _create_versions(self) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("name", DataType.VARCHAR, max_length=64, is_primary=True)
        schema.add_field("about", DataType.VARCHAR, max_length=_LONGEST_TEXT)
        schema.add_field("unused", DataType.FLOAT_VECTOR, dim=len(_NO_VECTOR))
        index = self._client.prepare_index_params()
        index.add_index("unused", index_type="FLAT", metric_type="L2")
        self._client.create_collection(_VERSIONS, schema=schema, index_params=index)

    def _create_pictures(self, version: Version) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("key", DataType.VARCHAR, max_length=32, is_primary=True)
        schema.add_field("picture", DataType.VARCHAR, max_length=_LONGEST_PICTURE)
        schema.add_field("item", DataType.VARCHAR, max_length=_LONGEST_NAME)
        schema.add_field("vertical", DataType.VARCHAR, max_length=_LONGEST_NAME)
        schema.add_field("record", DataType.INT64)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=version.dim)
        index = self._client.prepare_index_params()
        index.add_index(
            "embedding",
            index_type=version.settings.kind,
            metric_type="L2",
            params=version.settings.build_parameters(),
        )
        self._client.create_collection(version.collection, schema=schema, index_params=index)


_FIELDS = tuple(field.name for field in dataclasses.fields(IndexedPicture))


@contextlib.contextmanager
def _told(uri: str, hint: str = "") -> Iterator[None]:
    """Turns what Milvus raises into one line."""
    try:
        yield
    except MilvusException as error:
        reason = one_line(error.message)
        raise UserError(f"{uri}: {hint or 'the index fails'} ({reason})") from error


def _version(text: str) -> Version:
    about = json.loads(text)
    about["settings"] = IndexSettings(**about["settings"])
    about["verticals"] = tuple(about["verticals"])
    return Version(**about)


def _picture(row: dict[str, Any]) -> IndexedPicture:
    return IndexedPicture(**{name: row[name] for name in _FIELDS})


def _checked(picture: IndexedPicture) -> dict[str, Any]:
    """Returns the row of a picture, if its texts are no longer than Milvus keeps them."""
    row = {name: getattr(picture, name) for name in _FIELDS}
    for name, most in (
        ("picture", _LONGEST_PICTURE),
        ("item", _LONGEST_NAME),
        ("vertical", _LONGEST_NAME),
    ):
        length = len(row[name].encode("utf-8"))
        if length > most:
            raise UserError(
                f"{row['picture'][:200]}: {name} has {length} bytes; allowed are {most}"
            )
    return row
