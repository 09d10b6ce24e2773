"""Exact nearest neighbours between L2-normalised embeddings, in bounded memory.

A float32 product of matrices picks the candidates, with a margin as wide as its rounding can be;
distances of these few are then computed one by one in float64. So the result depends neither on
the sizes of blocks nor on the linear algebra library, and equal embeddings tie exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

from apparel_embed.common.cores import usable_cores
from apparel_embed.common.errors import UserError

# What is held at once: rows made unit vectors, pairs whose distance is computed, and neighbours of
# one block of queries. They bound memory and change no result.
_ROWS_AT_ONCE = 1 << 16
_PAIRS_AT_ONCE = 1 << 12
_NEIGHBOURS_AT_ONCE = 1 << 19
# Multiplied at once: the product stays in a core's cache.
_QUERY_BLOCK, _GALLERY_BLOCK = 1024, 1024
# Pairs from which on several threads are worth their while.
_PAIRS_FOR_THREADS = 1 << 22
# More than a product of float32 numbers can lose by being too small for float32.
_UNDERFLOW = 1e-37


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    query_records: np.ndarray,
    gallery_records: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest gallery images of every query by distance of unit vectors.

    Ties go to the smaller gallery position.

    Args:
      queries: [q, dim] embeddings of any length above zero.
      gallery: [g, dim] embeddings of any length above zero.
      k: how many neighbours to find, at least 1.
      query_records: [q] int64, record numbers; a query never finds its own record.
      gallery_records: [g] int64, record numbers.

    Returns:
      Gallery positions [q, min(k, g)] int64, nearest first, and distances (0 to 2) float32 of the
      same shape. Where a query has fewer neighbours: position -1, distance infinite.

    Raises:
      UserError: embeddings without direction, or shapes, records or k that do not fit.

    Examples:
      >>> embeddings = np.eye(3, dtype=np.float32)
      >>> nearest(embeddings[:1], embeddings, 2, np.array([7]), np.array([7, 8, 9]))[0]
      array([[1, 2]])
    """
    return NearestSearch(gallery, gallery_records).nearest(queries, k, query_records)


class NearestSearch:
    """A gallery made ready to be searched several times, as `nearest` does once.

    Memory is that of the gallery, of the result, and of one block for each thread.

    Args:
      gallery: [g, dim] embeddings of any length above zero.
      gallery_records: [g] int64, record numbers.

    Raises:
      UserError: embeddings without direction, or records that do not fit.
    """

    def __init__(self, gallery: np.ndarray, gallery_records: np.ndarray) -> None:
        self._records = _checked_records("gallery", gallery, gallery_records)
        self._gallery = unit_length(gallery, "gallery embeddings")
        self._rank = _rank_among_equals(self._gallery)
        # How many images a query leaves out at most, for being its own record.
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
                f"{self._gallery.shape} cannot be compared: the last dimension must be the same"
            )
        records = _checked_records("query", queries, query_records)
        require_directions(queries, "query embeddings")
        k = min(k, len(self._gallery))
        positions = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.inf, np.float32)
        if not positions.size:
            return positions, distances
        # Of equal embeddings a query finds the first k that are not its own record. Without this
        # a model that gives one embedding to all would have every pair's distance computed.
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
            # Each thread multiplies for itself: a library's own threads would only wait.
            with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as threads:
                list(threads.map(search, parts))
        return positions, distances


class _Gallery:
    """What is searched of a gallery: unit vectors moved together, in blocks.

    Distances do not change when all vectors move alike, and products of short vectors are rounded
    less: a model that maps everything into one corner stays cheap to judge. Each moved vector g is
    followed by -|g|^2 / 2, so that one product with (q, 1) gives the nearness q.g - |g|^2 / 2 =
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
        """Returns places [q, k] of the nearest vectors, -1 for none, and squared distances."""
        places, squared = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
        moved = queries - self._centre
        squares = _squares(moved)
        slack = self._slack(np.sqrt(squares))
        wide = np.concatenate([moved, np.ones([len(moved), 1], np.float32)], axis=1)
        product = np.empty([len(queries), _GALLERY_BLOCK], np.float32)
        # A nearness that is reached by k vectors which may be found.
        reached = np.full(len(queries), -np.inf)
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for some in _slices(len(self._wide), _GALLERY_BLOCK):
            part = self._wide[some]
            near = np.matmul(wide, part.T, out=product[:, : len(part)])
            # Of those that reach it, as many as are left out may be the query's own.
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
        """Computes the distances of candidates, and keeps the k nearest of them and those kept."""
        rows, new = (np.concatenate(parts) for parts in zip(*waiting))
        distances = np.empty(len(rows))
        for some in _slices(len(rows), _PAIRS_AT_ONCE):
            difference = np.subtract(queries[rows[some]], self._vectors[new[some]], dtype=float)
            distances[some] = np.einsum("ij,ij->i", difference, difference)
        # Candidates come in the order of places: one that ties with the last of k comes too late.
        nearer = distances < squared[rows, -1]
        kept = places >= 0
        rows = np.concatenate([np.nonzero(kept)[0], rows[nearer]])
        new = np.concatenate([places[kept], new[nearer]])
        distances = np.concatenate([squared[kept], distances[nearer]])
        # It is stable, so that ties stay in the order of places.
        order = np.lexsort((distances, rows))
        counts = np.bincount(rows, minlength=len(places))
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, rank = order[rank < places.shape[1]], rank[rank < places.shape[1]]
        places[rows[order], rank] = new[order]
        squared[rows[order], rank] = distances[order]

    def _slack(self, lengths: np.ndarray) -> np.ndarray:
        """Returns [q] by how much two values of nearness may be off together.

        A float32 product of n terms is off by at most n * 2**-24 times the sum of their absolute
        values, in whatever order they are added (Higham, "Accuracy and Stability of Numerical
        Algorithms", 3.1); other roundings add a few units of 2**-24 of the squares. Both a pair
        and the bound it is held against may be off by that much.
        """
        terms = lengths * self._longest + self._longest**2 / 2
        of_products = (self._vectors.shape[1] + 9) * 2.0**-24
        others = 2.0**-22 * (lengths**2 + self._longest**2)
        return 2 * (of_products * terms + others) + _UNDERFLOW


def require_directions(embeddings: np.ndarray, what: str = "embeddings") -> None:
    """Makes sure that embeddings are vectors which point somewhere.

    Args:
      embeddings: [n, dim] real numbers, dim at least 1.
      what: what the rows are, for the error message.

    Raises:
      UserError: not two-dimensional, or rows that are NaN, infinite or all zero.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.shape[1] < 1:
        raise UserError(f"{what}: shape {embeddings.shape}; expected [n, dim], dim at least 1")
    infinite, zero = np.zeros((2, len(embeddings)), bool)
    for some in _slices(len(embeddings), _ROWS_AT_ONCE):
        infinite[some] = ~np.isfinite(embeddings[some]).all(axis=1)
        zero[some] = ~embeddings[some].any(axis=1)
    for fault, rows in (
        ("hold NaN or infinite numbers", infinite),
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
        # Scaling by the largest entry first keeps the squares from running over or under.
        wide /= np.abs(wide).max(axis=1, keepdims=True)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        unit[some] = wide
    return unit


def _rank_among_equals(vectors: np.ndarray) -> np.ndarray:
    """Returns [n] how many vectors before it each one is equal to."""
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
            f"{records.shape}; one record number per embedding is needed"
        )
    return records
