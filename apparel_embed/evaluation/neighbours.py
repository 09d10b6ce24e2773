"""Exact nearest neighbours between L2-normalised embeddings, in bounded memory.

A float32 matrix product selects the candidates, with a margin that covers its rounding error. The
distances of these few are then computed one by one in float64. The result therefore depends neither
on block sizes nor on the linear algebra library, and equal embeddings tie exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from apparel_embed.common.cores import usable_cores
from apparel_embed.common.errors import UserError

# Rows normalised, pairs whose distance is computed, and neighbours of one block of queries held at
# once. They bound memory and do not affect results.
_ROWS_AT_ONCE = 1 << 16
_PAIRS_AT_ONCE = 1 << 12
_NEIGHBOURS_AT_ONCE = 1 << 19
# Rows multiplied at once: the product fits in a core's cache.
_QUERY_BLOCK, _GALLERY_BLOCK = 1024, 1024
# The number of pairs from which several threads pay off.
_PAIRS_FOR_THREADS = 1 << 22
# An upper bound of what underflow can cost a product of float32 numbers.
_UNDERFLOW = 1e-37


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    query_records: np.ndarray,
    gallery_records: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest gallery images of every query by the distance of unit vectors.

    Ties go to the smaller gallery position.

    Args:
      queries: [q, dim] nonzero embeddings of any length.
      gallery: [g, dim] nonzero embeddings of any length.
      k: number of neighbours to find, at least 1.
      query_records: [q] int64, record numbers; a query never finds its own record.
      gallery_records: [g] int64, record numbers.

    Returns:
      Gallery positions [q, min(k, g)] int64, nearest first, and distances (0 to 2) float32 of the
      same shape. Missing neighbours have position -1 and infinite distance.

    Raises:
      UserError: if an embedding is zero or not finite, or shapes, records or k are invalid.

    Examples:
      >>> embeddings = np.eye(3, dtype=np.float32)
      >>> nearest(embeddings[:1], embeddings, 2, np.array([7]), np.array([7, 8, 9]))[0]
      array([[1, 2]])
    """
    return NearestSearch(gallery, gallery_records).nearest(queries, k, query_records)


class NearestSearch:
    """A gallery prepared for several searches, each like `nearest`.

    It takes memory for the gallery, the result, and one block per thread.

    Args:
      gallery: [g, dim] nonzero embeddings of any length.
      gallery_records: [g] int64, record numbers.

    Raises:
      UserError: if an embedding is zero or not finite, or records are invalid.
    """

    def __init__(self, gallery: np.ndarray, gallery_records: np.ndarray) -> None:
        self._records = _checked_records("gallery", gallery, gallery_records)
        self._gallery = unit_length(gallery, "gallery embeddings")
        self._rank = _rank_among_equals(self._gallery)
        # The most images that a query skips because they have its own record number.
        self._own = int(np.unique(self._records, return_counts=True)[1].max(initial=0))

    def nearest(
        self, queries: np.ndarray, k: int, query_records: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k nearest gallery images of every query; see the function `nearest`."""
        if k < 1:
            raise UserError(f"k is {k}; expected 1 or more")
        if np.shape(queries)[1:] != self._gallery.shape[1:]:
            raise UserError(
                f"queries of shape {np.shape(queries)} and a gallery of shape "
                f"{self._gallery.shape}; expected the same last dimension"
            )
        records = _checked_records("query", queries, query_records)
        require_directions(queries, "query embeddings")
        k = min(k, len(self._gallery))
        positions = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        if not positions.size:
            return positions, distances
        # A query needs only the first k equal embeddings that are not its own record. Otherwise
        # every pair's distance would be computed for a model that gives all images one embedding.
        kept = np.flatnonzero(self._rank < k + self._own)
        vectors = self._gallery[kept] if len(kept) < len(self._gallery) else self._gallery
        gallery = _Gallery(vectors, self._records[kept], self._own)

        def search(some: slice) -> None:
            found, squared = gallery.nearest(unit_length(queries[some]), records[some], k)
            positions[some] = np.where(found >= 0, kept[found], -1)
            distances[some] = np.sqrt(squared)

        rows = min(_QUERY_BLOCK, max(1, _NEIGHBOURS_AT_ONCE // k))
        parts = list(_slices(len(queries), rows))
        cores = usable_cores()
        if len(queries) * len(kept) < _PAIRS_FOR_THREADS or cores == 1:
            for part in parts:
                search(part)
        else:
            # Each thread does its own multiplication; the BLAS library's threads would only wait.
            with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as threads:
                list(threads.map(search, parts))
        return positions, distances


class _Gallery:
    """The searched vectors of a gallery: unit vectors shifted by their mean, in blocks.

    A shift does not change distances, and products of shorter vectors have smaller rounding errors,
    so a model that maps everything into one corner stays cheap to evaluate. Each shifted vector g
    is followed by -|g|^2 / 2, so one product with (q, 1) gives the nearness q.g - |g|^2 / 2 =
    (|q|^2 - squared distance) / 2.
    """

    def __init__(self, vectors: np.ndarray, records: np.ndarray, own: int) -> None:
        self._vectors, self._records, self._own = vectors, records, own
        self._centre = vectors.mean(axis=0)
        self._wide = np.empty([len(vectors), vectors.shape[1] + 1], np.float32)
        moved = np.subtract(vectors, self._centre, out=self._wide[:, :-1])
        squares = _squares(moved)
        self._wide[:, -1] = -squares / 2
        self._longest = np.sqrt(squares.max())

    def nearest(
        self, queries: np.ndarray, records: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions [q, k] of the nearest vectors, -1 for none, and squared distances."""
        places, squared = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
        moved = queries - self._centre
        squares = _squares(moved)
        slack = self._slack(np.sqrt(squares))
        wide = np.concatenate([moved, np.ones([len(moved), 1], np.float32)], axis=1)
        product = np.empty([len(queries), _GALLERY_BLOCK], np.float32)
        # A nearness that at least k permitted vectors reach.
        reached = np.full(len(queries), -np.inf)
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for some in _slices(len(self._wide), _GALLERY_BLOCK):
            part = self._wide[some]
            near = np.matmul(wide, part.T, out=product[:, : len(part)])
            # Up to `_own` of the vectors that reach it may have the query's own record.
            wanted = k + self._own
            if wanted <= len(part) and np.isneginf(reached).any():
                at_least = np.partition(near, len(part) - wanted, axis=1)[:, len(part) - wanted]
                reached = np.maximum(reached, at_least - slack)
            passing = near >= (reached - slack).astype(np.float32)[:, None]
            rows, columns = np.divmod(np.flatnonzero(passing), len(part))
            others = records[rows] != self._records[some][columns]
            waiting.append((rows[others], columns[others] + some.start))
            if sum(len(one) for one, _ in waiting) >= places.size or some.stop >= len(self._wide):
                self._settle(queries, waiting, places, squared)
                reached = np.maximum(reached, (squares - squared[:, -1]) / 2)
                waiting = []
        return places, squared

    def _settle(
        self,
        queries: np.ndarray,
        waiting: list[tuple[np.ndarray, np.ndarray]],
        places: np.ndarray,
        squared: np.ndarray,
    ) -> None:
        """Computes the distances of candidates and merges them into the k nearest so far."""
        rows, new = (np.concatenate(parts) for parts in zip(*waiting))
        distances = np.empty(len(rows))
        for some in _slices(len(rows), _PAIRS_AT_ONCE):
            difference = np.subtract(queries[rows[some]], self._vectors[new[some]], dtype=float)
            distances[some] = np.einsum("ij,ij->i", difference, difference)
        # Candidates come in order of position, so one that ties with the k-th nearest loses.
        nearer = distances < squared[rows, -1]
        kept = places >= 0
        rows = np.concatenate([np.nonzero(kept)[0], rows[nearer]])
        new = np.concatenate([places[kept], new[nearer]])
        distances = np.concatenate([squared[kept], distances[nearer]])
        # The sort is stable, which keeps ties in order of position.
        order = np.lexsort((distances, rows))
        counts = np.bincount(rows, minlength=len(places))
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, rank = order[rank < places.shape[1]], rank[rank < places.shape[1]]
        places[rows[order], rank] = new[order]
        squared[rows[order], rank] = distances[order]

    def _slack(self, lengths: np.ndarray) -> np.ndarray:
        """Returns the largest combined error [q] of two values of nearness.

        A float32 product of n terms has an error of at most n * 2**-24 times the sum of their
        absolute values, in any order of summation (Higham, "Accuracy and Stability of Numerical
        Algorithms", 3.1). Other roundings add a few units of 2**-24 of the squares. Both a pair
        and the bound it is compared to may be off by that much.
        """
        terms = lengths * self._longest + self._longest**2 / 2
        of_products = (self._vectors.shape[1] + 9) * 2.0**-24
        others = 2.0**-22 * (lengths**2 + self._longest**2)
        return 2 * (of_products * terms + others) + _UNDERFLOW


def require_directions(embeddings: np.ndarray, what: str = "embeddings") -> None:
    """Checks that embeddings are finite, nonzero vectors.

    Args:
      embeddings: [n, dim] real numbers, dim at least 1.
      what: name of the rows, for the error message.

    Raises:
      UserError: if they are not two-dimensional, or a row has NaN or infinities or is all zero.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] < 1:
        raise UserError(f"{what}: shape {embeddings.shape}; expected [n, dim], dim at least 1")
    infinite, zero = np.zeros((2, len(embeddings)), bool)
    for some in _slices(len(embeddings), _ROWS_AT_ONCE):
        infinite[some] = ~np.isfinite(embeddings[some]).all(axis=1)
        zero[some] = ~embeddings[some].any(axis=1)
    for fault, rows in (
        ("contain NaN or infinite numbers", infinite),
        ("are all zero and have no direction to compare", zero),
    ):
        if rows.any():
            raise UserError(
                f"{what}: {rows.sum()} of {len(embeddings)} embeddings {fault} "
                f"(the first in row {rows.argmax()})"
            )


def unit_length(embeddings: np.ndarray, what: str = "embeddings") -> np.ndarray:
    """Returns embeddings scaled to Euclidean length 1: float32 [n, dim], a copy.

    Arguments and errors are those of `require_directions`.
    """
    require_directions(embeddings, what)
    embeddings = np.asarray(embeddings)
    unit = np.empty(embeddings.shape, np.float32)
    for some in _slices(len(embeddings), _ROWS_AT_ONCE):
        wide = np.array(embeddings[some], dtype=np.float64)
        # Scaling by the largest entry first prevents overflow and underflow of the squares.
        wide /= np.abs(wide).max(axis=1, keepdims=True)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        unit[some] = wide
    return unit


def _rank_among_equals(vectors: np.ndarray) -> np.ndarray:
    """Returns for each vector the number of equal vectors before it: int64 [n]."""
    if not len(vectors):
        return np.zeros(0, np.int64)
    rows = np.ascontiguousarray(vectors).view(f"V{vectors.shape[1] * vectors.itemsize}")[:, 0]
    _, group = np.unique(rows, return_inverse=True)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(vectors), np.int64)
    rank[order] = np.arange(len(vectors)) - np.searchsorted(group[order], group[order])
    return rank


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)


def _slices(count: int, at_once: int) -> Iterator[slice]:
    return (slice(start, start + at_once) for start in range(0, count, at_once))


def _checked_records(what: str, embeddings: np.ndarray, records: np.ndarray) -> np.ndarray:
    records = np.asarray(records)
    if records.shape != np.shape(embeddings)[:1]:
        raise UserError(
            f"{what}: {np.shape(embeddings)[0]} embeddings but records of shape "
            f"{records.shape}; expected one record number per embedding"
        )
    return records
