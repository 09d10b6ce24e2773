"""The interface of an index: versions of the model, images with their embeddings, and hits.

To add another kind of index, add a module with an implementation of `VectorIndex` and an
`open_index` function, and an entry in `INDEXES`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.images import ImageSettings
from apparel_embed.evaluation.items import IMAGE, ITEM

INDEXES: dict[str, str] = {
    "": "apparel_embed.search.file",
    "http://": "apparel_embed.search.milvus",
    "https://": "apparel_embed.search.milvus",
}
"""Modules whose `open_index` opens an address, by its prefix; the longest match wins."""
INDEX_KINDS = ("FLAT", "IVF_FLAT", "HNSW")
# Most items have fewer images than this.
IMAGES_PER_ITEM = 4


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """How vectors are stored and searched."""

    kind: str = setting(
        "FLAT",
        "FLAT compares with every vector and misses none; IVF_FLAT and HNSW (servers only) compare "
        "with only some",
        choices=INDEX_KINDS,
        flag="index_kind",
    )
    hnsw_m: int = setting(16, "links per vector in HNSW", 2, 2048)
    hnsw_ef_construction: int = setting(200, "candidates while building HNSW", 1, 32768, rare=True)
    hnsw_ef: int = setting(
        512,
        "candidates in a search of HNSW; never fewer than the requested hits",
        1,
        32768,
    )
    ivf_lists: int = setting(128, "number of clusters in IVF_FLAT", 1, 65536, rare=True)
    ivf_probes: int = setting(32, "clusters scanned by a search of IVF_FLAT", 1, 65536, rare=True)
    index_by: str | None = setting(
        None,
        "whether a search compares the query with every image, or with the mean of each item's "
        "images; by default unchanged for an existing index, and image for a new one",
        choices=(IMAGE, ITEM),
    )


@dataclasses.dataclass(frozen=True)
class Version:
    """The images of an index as embedded by one model.

    Attributes:
      model: fingerprint of the model, hexadecimal.
      dim: length of an embedding.
      complete: whether it was filled completely at least once.
      filling: whether its last filling has not finished.
      images_of: fingerprint of the prepared dataset that `record` refers to; "" if none.
      verticals: names, sorted.
      images: number of images.
      settings: how vectors are stored and searched.
      image_settings: how its images were prepared; queries are prepared in the same way.
      edition: number of changes since it was filled.
    """

    model: str
    dim: int
    complete: bool = False
    filling: bool = False
    images_of: str = ""
    verticals: tuple[str, ...] = ()
    images: int = 0
    settings: IndexSettings = IndexSettings()
    image_settings: ImageSettings = ImageSettings()
    edition: int = 0

    @classmethod
    def from_json(cls, text: str) -> Version:
        """Returns the version that `to_json` wrote; a KeyError or TypeError means it did not."""
        about = json.loads(text)
        about["settings"] = IndexSettings(**about["settings"])
        about["image_settings"] = ImageSettings(**about["image_settings"])
        about["verticals"] = tuple(about["verticals"])
        return cls(**about)

    def to_json(self) -> str:
        """Returns the version as JSON."""
        return json.dumps(dataclasses.asdict(self))

    def unknown_verticals(self, known: Sequence[str]) -> tuple[str, ...]:
        """Returns the verticals that are not in `known`; none if `known` is empty."""
        return tuple(name for name in self.verticals if known and name not in known)


@dataclasses.dataclass(frozen=True)
class IndexedImage:
    """An image as it is stored with its embedding.

    Attributes:
      key: identifies the image: 32 hexadecimal digits.
      image: path or URI in the manifest.
      item: id of the garment; "" if it has none.
      vertical: name.
      record: number in the prepared dataset, or -1.
      content: hash of the JPEG given to the model, 32 hexadecimal digits; "" if unknown. It may
        be empty in hits.
    """

    key: str
    image: str
    item: str
    vertical: str
    record: int = -1
    content: str = ""


@dataclasses.dataclass(frozen=True)
class Hit:
    """A matching image.

    Attributes:
      image: the image.
      distance: Euclidean distance between unit vectors, 0 to 2.
    """

    image: IndexedImage
    distance: float


@dataclasses.dataclass(frozen=True)
class IndexAccess:
    """Credentials for an index on a server.

    Attributes:
      secret: the user's password, or an API key if there is no user.
    """

    user: str = setting("", "user of the Milvus server")
    ca_file: str = setting(
        "",
        "PEM file of the CA certificates that verify an https:// server; by default the public CAs",
    )
    certificate: str = setting(
        "",
        "PEM file of the client certificate, if the server requires one",
        rare=True,
    )
    private_key: str = setting("", "PEM file of the client certificate's key", rare=True)
    secret: str = dataclasses.field(default="", repr=False)


class VectorIndex(Protocol):
    """Image embeddings, with one version per model; thread-safe.

    Versions are separate, since distances between embedding spaces are meaningless; one of them
    answers searches. If the process is killed, no image is left half-written. Writes are visible
    from `finish` on, also to other processes. Failures raise UserError.
    """

    def current(self) -> Version | None:
        """Returns the version that answers searches; None before the first switch."""

    def version(self, model: str) -> Version | None:
        """Returns a model's version, complete or not; None if there is none."""

    def begin(self, version: Version) -> Version:
        """Creates or resumes a version, and marks it as `filling`.

        Returns:
          The version as `finish` will store it, possibly with other settings.

        Raises:
          UserError: if it exists with another dim, or with settings that cannot be changed.
        """

    def upsert(
        self, version: Version, images: Sequence[IndexedImage], embeddings: np.ndarray
    ) -> None:
        """Adds images, or replaces those with the same key; embeddings are float [n, dim].

        Raises:
          UserError: if an embedding does not have unit length, or a text is too long.
        """

    def delete(self, version: Version, keys: Sequence[str]) -> None:
        """Removes images; missing keys are ignored."""

    def finish(self, version: Version) -> Version:
        """Writes everything to disk, marks the version as filled and resets its edition to 0.

        Returns:
          The version with updated `images` and `verticals`.
        """

    def change(
        self,
        version: Version,
        images: Sequence[IndexedImage],
        embeddings: np.ndarray,
        removed: Sequence[str],
    ) -> Version:
        """Changes a complete version. In a file, the change is atomic and can be rolled back.

        Args:
          version: version to change.
          images: images to add; each replaces the image with the same key.
          embeddings: float [n, dim], of `images`.
          removed: keys of images to remove.

        Returns:
          The version with its next edition.
        """

    def roll_back(self, version: Version, edition: int) -> Version:
        """Restores an earlier edition of a version; does nothing if it is the current one.

        Raises:
          UserError: if that edition is not kept. Servers keep none.
        """

    def switch(self, version: Version) -> None:
        """Makes a version answer searches from now on.

        Raises:
          UserError: if it is not complete.
        """

    def keys(
        self,
        version: Version,
        *,
        of_dataset: bool = False,
        images: Sequence[str] | None = None,
        items: Sequence[str] | None = None,
    ) -> Iterator[str]:
        """Yields keys of images, in any order.

        Args:
          version: version to list.
          of_dataset: only images of a prepared dataset.
          images: only these images, each given by its key, path or URI.
          items: only images of these items.
        """

    def find(
        self, version: Version, keys: Sequence[str], contents: Sequence[str] = ()
    ) -> list[tuple[IndexedImage, np.ndarray]]:
        """Returns the images with one of the keys or contents, and their embeddings."""

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
        """Finds the nearest images.

        Args:
          version: version to search; see `current`.
          embedding: float [dim], of unit length.
          k: number of hits, at least 1.
          vertical: search only this vertical, or these.
          by_item: return only the nearest image of each item; images without an item all count.
          without: key of an image to leave out; "" for none.

        Returns:
          k hits, nearest first. There are fewer only if no more exist, for every kind of index.
        """


def open_index(
    uri: str, access: IndexAccess | None = None, *, to_read: bool = False
) -> AbstractContextManager[VectorIndex]:
    """Opens an index; creates an empty one if it does not exist.

    Args:
      uri: a file, which one process at a time may open for writing and any number for reading; or
        a Milvus server, `http://host:19530`, optionally with a database: `http://host:19530/mine`.
      access: credentials for a server; None if it needs none.
      to_read: open an existing file for reading, even while another process writes to it.

    Raises:
      UserError: if it cannot be opened.

    Examples:
      >>> with open_index("runs/mine/index.db") as index:
      ...     version = index.current()  # None while nothing is indexed
      ...     hits = index.search(version, embedding, k=10, vertical="dress") if version else []
    """
    module = INDEXES[max((start for start in INDEXES if uri.startswith(start)), key=len)]
    return importlib.import_module(module).open_index(uri, access or IndexAccess(), to_read=to_read)


def check_complete(known: Version | None, uri: str, model: str) -> None:
    """Checks that a version may answer searches.

    Raises:
      UserError: if it does not exist, or is not complete.
    """
    if not (known and known.complete):
        raise UserError(f"{uri}: no complete version of model {model[:16]}; build it first")


def check_filled(version: Version, uri: str) -> None:
    """Checks that a version contains no part of an unfinished filling.

    Raises:
      UserError: if it does.
    """
    if version.filling:
        raise UserError(
            f"{uri}: the last filling of the index did not finish; repeat it with "
            "tools/build_index.py first. Nothing was changed"
        )


def check_embeddings(
    version: Version, images: Sequence[IndexedImage], embeddings: np.ndarray
) -> None:
    """Checks embeddings before they are stored.

    Raises:
      UserError: if they have the wrong shape, or one does not have unit length.
    """
    if embeddings.shape != (len(images), version.dim):
        raise UserError(
            f"embeddings of shape {embeddings.shape}; expected {(len(images), version.dim)}"
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    if not np.allclose(lengths, 1, atol=1e-3):
        worst = int(np.argmax(np.abs(np.nan_to_num(lengths) - 1)))
        raise UserError(
            f"{images[worst].image}: its embedding has length {lengths[worst]:g}; expected 1"
        )


def group_of(image: IndexedImage, by_item: bool) -> str:
    """Returns the group of a hit: its item, or itself without `by_item` or without an item."""
    return f"item {image.item}" if by_item and image.item else f"key {image.key}"


def nearest_groups(
    fetch: Callable[[int, Sequence[Hit], int], Sequence[Hit]],
    k: int,
    *,
    efforts: int = 1,
    by_item: bool = True,
    most: int = 16_384,
) -> list[Hit]:
    """Returns the nearest image of each of the k nearest items; fewer only if there are fewer.

    An item with many images may fill the first answer, so more images are fetched each time. Once
    `most` is reached, items already found are filtered out instead; filters cost time, too. An
    approximate search that runs dry may have missed nearer images, so it starts again with more
    effort.

    Args:
      fetch: takes the number of images to fetch, hits whose items to exclude, and the effort, 0 for
        the usual one; returns the nearest other images, fewer only if it finds no more. The
        greatest effort finds all images.
      k: number of items, at least 1.
      efforts: number of efforts that `fetch` supports.
      by_item: whether images of one item count as one; images without an item count separately.
      most: maximum number of images fetched at once.

    Returns:
      Hits, nearest first.
    """
    found: dict[str, Hit] = {}
    for effort in range(efforts):
        found, unwanted = {}, list[Hit]()
        limit = min(k * (IMAGES_PER_ITEM if by_item else 1), most)
        is_dry = False
        while len(found) < k and not is_dry:
            hits = fetch(limit, unwanted, effort)
            for hit in sorted(hits, key=_order):
                found.setdefault(group_of(hit.image, by_item), hit)
            is_dry = len(hits) < limit
            if limit == most:
                unwanted = list(found.values())
            limit = min(4 * limit, most)
        if len(found) >= k:
            break
    return sorted(found.values(), key=_order)[:k]


def _order(hit: Hit) -> tuple[float, str]:
    return hit.distance, hit.image.key
