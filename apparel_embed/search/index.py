"""What an index is: versions of the model, images with their embeddings, and hits.

Another index is one more file, with a class that has the methods of `VectorIndex` and an
`open_index`, and a line in `INDEXES`.
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
from apparel_embed.evaluation.items import IMAGE, ITEM

INDEXES: dict[str, str] = {
    "": "apparel_embed.search.file",
    "http://": "apparel_embed.search.milvus",
    "https://": "apparel_embed.search.milvus",
}
"""How addresses begin, and the module whose `open_index` opens them; the longest that fits."""
INDEX_KINDS = ("FLAT", "IVF_FLAT", "HNSW")
# Most items have fewer images than this.
IMAGES_PER_ITEM = 4


@dataclasses.dataclass(frozen=True)
class IndexSettings:
    """How vectors are kept."""

    kind: str = setting(
        "FLAT",
        "FLAT compares with every vector and misses none; IVF_FLAT and HNSW (servers only) compare "
        "with some",
        choices=INDEX_KINDS,
        flag="index_kind",
    )
    hnsw_m: int = setting(16, "links of a vector in HNSW", 2, 2048)
    hnsw_ef_construction: int = setting(
        200, "candidates while HNSW is built", 1, 32768, seldom=True
    )
    hnsw_ef: int = setting(
        512,
        "candidates of a search in HNSW; never fewer than the hits asked for",
        1,
        32768,
    )
    ivf_lists: int = setting(128, "clusters of IVF_FLAT", 1, 65536, seldom=True)
    ivf_probes: int = setting(
        32, "clusters that a search in IVF_FLAT looks through", 1, 65536, seldom=True
    )
    index_by: str | None = setting(
        None,
        "what a search compares with: every image, or every item by the mean of its images; by "
        "default as the index does already; a new index, by image",
        choices=(IMAGE, ITEM),
    )


@dataclasses.dataclass(frozen=True)
class Version:
    """One model's images.

    Attributes:
      model: fingerprint of the model, hexadecimal.
      dim: length of an embedding.
      complete: whether it was filled to the end at least once.
      images_of: fingerprint of what `record` counts in, such as a prepared dataset; "" if none.
      verticals: names, sorted.
      images: how many there are.
      settings: how vectors are kept.
      edition: how many times it was changed since it was filled.
    """

    model: str
    dim: int
    complete: bool = False
    images_of: str = ""
    verticals: tuple[str, ...] = ()
    images: int = 0
    settings: IndexSettings = IndexSettings()
    edition: int = 0

    @classmethod
    def from_json(cls, text: str) -> Version:
        """Returns what `to_json` has written."""
        about = json.loads(text)
        about["settings"] = IndexSettings(**about["settings"])
        about["verticals"] = tuple(about["verticals"])
        return cls(**about)

    def to_json(self) -> str:
        """Returns all of it as text."""
        return json.dumps(dataclasses.asdict(self))

    def unknown_verticals(self, known: Sequence[str]) -> tuple[str, ...]:
        """Returns its verticals that a model has never seen; of one that knows none, none."""
        return tuple(name for name in self.verticals if known and name not in known)


@dataclasses.dataclass(frozen=True)
class IndexedImage:
    """An image as it is kept beside its embedding.

    Attributes:
      key: identifies the image: 32 hexadecimal digits.
      image: path or URI, as the manifest has it.
      item: id of the garment; "" if it has none.
      vertical: name.
      record: number in the prepared dataset, or -1.
      content: 32 hexadecimal digits of the image as the model was given it; "" if that is not
        known. Hits may leave it empty.
    """

    key: str
    image: str
    item: str
    vertical: str
    record: int = -1
    content: str = ""


@dataclasses.dataclass(frozen=True)
class Hit:
    """An image that was found.

    Attributes:
      image: which.
      distance: Euclidean between unit vectors, 0 to 2.
    """

    image: IndexedImage
    distance: float


@dataclasses.dataclass(frozen=True)
class IndexAccess:
    """How a server lets us in.

    Attributes:
      secret: the user's password; without a user an API key.
    """

    user: str = setting("", "user of the Milvus server")
    ca_file: str = setting(
        "",
        "PEM file of the certificates that verify a server at https://; by default the public ones",
    )
    certificate: str = setting(
        "",
        "PEM file of the certificate that shows the server who asks, where it wants one",
        seldom=True,
    )
    private_key: str = setting("", "PEM file of that certificate's key", seldom=True)
    secret: str = dataclasses.field(default="", repr=False)


class VectorIndex(Protocol):
    """Embeddings of images, a version for each model; safe to use from several threads.

    Every version is apart, for distances between spaces mean nothing; one of them answers. Killed
    at any moment, it opens again with every image whole or not there. What is written is found
    from `finish` on, by other processes, too. What fails is a UserError.
    """

    def current(self) -> Version | None:
        """Returns the version that answers; None before the first switch."""

    def version(self, model: str) -> Version | None:
        """Returns a model's version, complete or not; None if there is none."""

    def begin(self, version: Version) -> Version:
        """Makes a version, or resumes it; returns it as it is kept, maybe with other settings.

        Raises:
          UserError: if it is there with another length, or other settings that cannot be changed.
        """

    def upsert(
        self, version: Version, images: Sequence[IndexedImage], embeddings: np.ndarray
    ) -> None:
        """Adds images, or replaces those of the same key; embeddings are float [n, dim].

        Raises:
          UserError: if an embedding is not of unit length, or a text too long.
        """

    def delete(self, version: Version, keys: Sequence[str]) -> None:
        """Removes images; a key that is not there is no error."""

    def finish(self, version: Version) -> Version:
        """Writes all to disk and says that the version is complete; its edition is 0 again.

        Returns:
          The version with its `images` and `verticals` counted.
        """

    def change(
        self,
        version: Version,
        images: Sequence[IndexedImage],
        embeddings: np.ndarray,
        removed: Sequence[str],
    ) -> Version:
        """Changes a complete version: in a file at once or not at all, and to be rolled back.

        Args:
          version: whose images.
          images: to add, or to replace those of the same key.
          embeddings: float [n, dim] of these.
          removed: keys of images to remove.

        Returns:
          The version, of the next edition.
        """

    def roll_back(self, version: Version, edition: int) -> Version:
        """Makes a version what it was before; nothing happens if that is what it is.

        Raises:
          UserError: if that edition is not kept. A server keeps none.
        """

    def switch(self, version: Version) -> None:
        """Lets a version answer from now on.

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
          version: whose images.
          of_dataset: those of a prepared dataset only.
          images: these only, each named by its key, path or URI.
          items: those of these items only.
        """

    def find(
        self, version: Version, keys: Sequence[str], contents: Sequence[str] = ()
    ) -> list[tuple[IndexedImage, np.ndarray]]:
        """Returns the images, with their embeddings, that have one of some keys or contents."""

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
          version: whose images; see `current`.
          embedding: float [dim], of unit length.
          k: how many hits, 1 or more.
          vertical: search in this one only, or in these.
          by_item: of every item only the nearest image; one without an item stands for itself.
          without: key of an image to leave out; "" for none.

        Returns:
          k hits, nearest first; fewer only if there are no more, whatever kind the index is of.
        """


def open_index(
    uri: str, access: IndexAccess | None = None, *, to_read: bool = False
) -> AbstractContextManager[VectorIndex]:
    """Opens an index, and makes an empty one where there is none.

    Args:
      uri: a file, which one process at a time may have open to write and any number to read; or a
        Milvus server, `http://host:19530`, with a database or without: `http://host:19530/mine`.
      access: how a server lets us in; None where it lets everybody in.
      to_read: open a file, which must be there, beside one that writes.

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
    """Checks that a version may answer.

    Raises:
      UserError: if it is not there, or not complete.
    """
    if not (known and known.complete):
        raise UserError(f"{uri}: model {model[:16]} is not indexed to the end; build it")


def check_embeddings(
    version: Version, images: Sequence[IndexedImage], embeddings: np.ndarray
) -> None:
    """Checks what will be kept.

    Raises:
      UserError: if embeddings are of another shape, or one is not of unit length.
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
    """Returns what a hit counts as: its item, or itself if it has none or images are wanted."""
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

    An item of many images fills the first answer alone, so more are fetched, and from `most` on
    those of other items than are there: filters cost time, too. An approximate search that runs dry
    is repeated from the start with more effort, since it may have missed the nearer ones.

    Args:
      fetch: takes how many images to fetch, hits whose items are not wanted, and the effort, 0 for
        the usual one; returns the nearest of the other images, fewer only if it finds no more. The
        greatest effort finds all.
      k: how many items, 1 or more.
      efforts: how many efforts `fetch` knows.
      by_item: whether images of one item count as one; an image without an item counts for itself.
      most: images that are fetched at once.

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
