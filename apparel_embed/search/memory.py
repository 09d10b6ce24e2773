"""A version of an index in memory: a matrix of embeddings, and the images of its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from apparel_embed.evaluation.items import ITEM, mean_vectors
from apparel_embed.search.index import IMAGES_PER_ITEM, IndexedImage

HIT_FIELDS = tuple(field.name for field in dataclasses.fields(IndexedImage))[:-1]
"""The fields of an image kept in memory: all except its content, which only changes need."""
_COLUMNS = pa.schema(
    [(name, pa.large_string()) for name in HIT_FIELDS[:-1]] + [("record", pa.int64())]
)


@dataclasses.dataclass(frozen=True)
class SearchedRows:
    """The images (or items) of a version in memory, grouped by vertical.

    Attributes:
      filled: how often the version had been written when it was read.
      images: a column for each of `HIT_FIELDS`.
      embeddings: float32 [n, dim].
      offsets: float32 [n], half the squared lengths, since these are only approximately 1.
      items: int64 [n], number of each image's item; an image without an item has its own number.
      spans: [start, end) rows of each vertical.
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
        """Returns a version's images, or its items with their mean embeddings.

        Args:
          filled: how often the version had been written.
          texts: pages of images, each with the values of `HIT_FIELDS`.
          vectors: pages of the embeddings of the same images, as bytes.
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
        """Returns the rows of the k nearest images, nearest first; see `VectorIndex.search`."""
        spans = [(0, len(self.embeddings))]
        if verticals is not None:
            spans = [self.spans[name] for name in sorted({*verticals} & {*self.spans})]
        if not spans:
            return np.empty(0, np.int64)
        places = np.concatenate([np.arange(*span) for span in spans])
        # A greater score means a smaller distance.
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
    """Returns the row of the image nearest to each item's mean, and the means.

    Args:
      embeddings: float32 [n, dim].
      groups: int [n, 2], vertical and item numbers of each image; results are sorted by them.
    """
    _, codes = np.unique(groups, axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    means = mean_vectors(embeddings, codes)
    near = np.einsum("nd,nd->n", embeddings, means[codes])
    order = np.lexsort((-near, codes))
    _, first = np.unique(codes[order], return_index=True)
    return order[first], means


def _numbered(texts: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """Returns the distinct texts, and the number of each row's text."""
    encoded = texts.combine_chunks().dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
