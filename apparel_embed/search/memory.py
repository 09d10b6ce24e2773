"""A version of an index in memory: a matrix to multiply by the query, and what its rows are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from apparel_embed.evaluation.items import ITEM, mean_vectors
from apparel_embed.search.index import IMAGES_PER_ITEM, IndexedImage

HIT_FIELDS = tuple(field.name for field in dataclasses.fields(IndexedImage))[:-1]
"""What is kept of an image: all but its content, which is looked up when it is to be changed."""
_COLUMNS = pa.schema(
    [(name, pa.large_string()) for name in HIT_FIELDS[:-1]] + [("record", pa.int64())]
)


@dataclasses.dataclass(frozen=True)
class SearchedRows:
    """A version as it is in memory, images or the items of each vertical side by side.

    Attributes:
      filled: how often the version had been filled when it was read.
      images: a column for each of `HIT_FIELDS`.
      embeddings: float32 [n, dim].
      offsets: half the squared length of each, for they are of unit length but nearly.
      items: number of each image's item; an image without one has a number of its own.
      spans: of a vertical, the place of its first image and that behind its last.
    """

    filled: int
    images: pa.Table
    embeddings: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    spans: dict[str, tuple[int, int]]

    @classmethod
    def read(
        cls,
        filled: int,
        texts: Iterable[list[tuple]],
        vectors: Iterable[list[tuple]],
        *,
        dim: int,
        index_by: str | None,
    ) -> SearchedRows:
        """Returns a version's images, or its items by their means.

        Args:
          filled: how often the version had been filled.
          texts: pages of images, each with the values of `HIT_FIELDS`.
          vectors: pages of the same images' embeddings, as bytes.
          dim: length of an embedding.
          index_by: see `IndexSettings`.
        """
        tables = [pa.table(list(map(list, zip(*page))), schema=_COLUMNS) for page in texts]
        images = pa.concat_tables([_COLUMNS.empty_table(), *tables]).combine_chunks()
        verticals, numbers = _numbered(images["vertical"])
        order = np.argsort(numbers, kind="stable")
        place_of = np.empty_like(order)
        place_of[order] = np.arange(len(order))
        embeddings = np.empty((len(order), dim), np.float32)
        start = 0
        for page in vectors:
            some = np.frombuffer(b"".join(one for (one,) in page), "<f4")
            embeddings[place_of[start : start + len(page)]] = some.reshape(len(page), -1)
            start += len(page)
        images, numbers = images.take(order).combine_chunks(), numbers[order]
        names, items = _numbered(images["item"])
        if "" in names:
            alone = items == names.index("")
            items[alone] = -1 - np.flatnonzero(alone)
        if index_by == ITEM:
            nearest, embeddings = _by_item(embeddings, np.stack([numbers, items], axis=1))
            images, numbers, items = images.take(nearest), numbers[nearest], items[nearest]
        ends = np.cumsum(np.bincount(numbers, minlength=len(verticals))).tolist()
        halves = np.einsum("nd,nd->n", embeddings, embeddings) / 2
        spans = dict(zip(verticals, zip([0, *ends], ends)))
        return cls(filled, images, embeddings, halves, items, spans)

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
                found = found[self.images["key"].take(found).to_numpy() != without]
            if by_item:
                _, first = np.unique(self.items[found], return_index=True)
                found = found[np.sort(first)]
            if len(found) >= k or limit >= len(scores):
                return found[:k]
            limit *= 4


def _by_item(embeddings: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns of each item the place of the image nearest to its mean, and that mean.

    Args:
      embeddings: float32 [n, dim].
      groups: int [n, 2], numbers of each image's vertical and item; results are in their order.
    """
    _, codes = np.unique(groups, axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    means = mean_vectors(embeddings, codes)
    near = np.einsum("nd,nd->n", embeddings, means[codes])
    order = np.lexsort((-near, codes))
    _, first = np.unique(codes[order], return_index=True)
    return order[first], means


def _numbered(texts: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Returns the texts that there are, and of each row the number of its own."""
    encoded = texts.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
