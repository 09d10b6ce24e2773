"""Exact nearest neighbours between L2-normalised embeddings, in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from apparel_embed.common.cores import usable_cores
from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.tiles import Tiles, make_tiles
from apparel_embed.evaluation.vectors import require_directions, slices, unit_length

# Pairs whose distance is recomputed, and neighbours of one block of queries that
# are held at once: they bound memory and change no result.
_PAIRS_AT_ONCE = 1 << 12
_NEIGHBOURS_AT_ONCE = 1 << 19
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
    *,
    query_block: int | None = None,
    gallery_block: int | None = None,
    device: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest gallery pictures of every query by distance of unit vectors.

    A float32 product of matrices picks the candidates, with a margin as wide as its rounding can
    be; distances of these few are then computed one by one in float64. So the result depends
    neither on the sizes of blocks nor on the device or the linear algebra library, and equal
    embeddings tie exactly. Ties go to the smaller gallery position.

    Args:
      queries: [q, dim] embeddings of any length above zero.
      gallery: [g, dim] embeddings of any length above zero.
      k: how many neighbours to find, at least 1.
      query_records: [q] int64, record numbers; a query never finds its own record.
      gallery_records: [g] int64, record numbers.
      query_block: queries handled at once; None for what suits the device.
      gallery_block: gallery pictures handled at once; None for what suits the device.
      device: where products are made, as in `NearestSearch`.

    Returns:
      Gallery positions [q, min(k, g)] int64, nearest first, and distances (0 to 2) float32 of the
      same shape. Where a query has fewer neighbours: position -1, distance infinite.

    Raises:
      UserError: embeddings without direction, or shapes, records or k that do not fit.

    Example:
      >>> embeddings = np.eye(3, dtype=np.float32)
      >>> nearest(embeddings[:1], embeddings, 2, np.array([7]), np.array([7, 8, 9]))[0]
      array([[1, 2]])
    """
    search = NearestSearch(gallery, gallery_records, gallery_block=gallery_block, device=device)
    return search.nearest(queries, k, query_records, query_block=query_block)


class NearestSearch:
    """A gallery made ready to be searched several times, as `nearest` does once.

    Memory is that of the gallery, of the result, and of one block for each thread.

    Args:
      gallery: [g, dim] embeddings of any length above zero.
      gallery_records: [g] int64, record numbers.
      gallery_block: gallery pictures handled at once; None for what suits the device.
      device: where products are made: a TensorFlow device such as "GPU:0", or None for the first
        GPU if TensorFlow is in use and knows one, and else NumPy on all cores.

    Raises:
      UserError: embeddings without direction, or records that do not fit.
    """

    def __init__(
        self,
        gallery: np.ndarray,
        gallery_records: np.ndarray,
        *,
        gallery_block: int | None = None,
        device: str | None = None,
    ) -> None:
        self._device = device
        self._records = _checked_records("gallery", gallery, gallery_records)
        self._gallery = unit_length(gallery, "gallery embeddings")
        self._block = _checked_block(gallery_block, make_tiles(device).gallery_block)
        self._double = _places_among_equals(self._gallery)
        # How many pictures a query leaves out at most, for being its own record.
        self._own = int(_times_in(self._records).max(initial=0))
        self._opened: _Opened | None = None

    def nearest(
        self,
        queries: np.ndarray,
        k: int,
        query_records: np.ndarray,
        *,
        query_block: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k nearest gallery pictures of every query; see the function `nearest`."""
        if k < 1:
            raise UserError(f"k is {k}; allowed is 1 or more")
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
        opened = self._open(k)
        rows = _checked_block(query_block, make_tiles(self._device).query_block)
        rows = min(rows, max(1, _NEIGHBOURS_AT_ONCE // k))

        def search(some: slice) -> None:
            block = _Block(unit_length(queries[some]), records[some], positions[some])
            distances[some] = block.search(opened, make_tiles(self._device))

        _on_all_cores(search, list(slices(len(queries), rows)), len(queries) * len(self._gallery))
        return positions, distances

    def _open(self, k: int) -> _Opened:
        """Returns the gallery without pictures that no query can find among its k nearest.

        Of equal embeddings a query finds the first k that are not its own record. Without this a
        model that gives one embedding to everything would have every pair's distance computed.
        """
        kept = np.flatnonzero(self._double < k + self._own)
        if self._opened is None or len(self._opened.positions) != len(kept):
            self._opened = None
            self._opened = _Opened.of(
                self._gallery, self._records, kept, self._own, self._block, make_tiles(self._device)
            )
        return self._opened


@dataclasses.dataclass(frozen=True)
class _Part:
    """Some of the gallery: its first place, loaded vectors, and the longest one's length."""

    start: int
    vectors: Any
    longest: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Opened:
    """What is searched of a gallery.

    Attributes:
      gallery: [n, dim] float32, of unit length.
      records: [n] record numbers.
      positions: [n] of these in the whole gallery, rising.
      own: how often a record is there at most.
      centre: [dim] float32. Distances do not change when all vectors move alike, and products of
        short vectors are rounded less: a model that maps everything into one corner stays cheap to
        judge.
      parts: the gallery less the centre, each vector v followed by -|v|^2 / 2.
    """

    gallery: np.ndarray
    records: np.ndarray
    positions: np.ndarray
    own: int
    centre: np.ndarray
    parts: list[_Part]

    @classmethod
    def of(
        cls,
        gallery: np.ndarray,
        records: np.ndarray,
        kept: np.ndarray,
        own: int,
        block: int,
        tiles: Tiles,
    ) -> _Opened:
        """Makes some of the gallery ready to be searched."""
        if len(kept) < len(gallery):
            gallery, records = gallery[kept], records[kept]
        centre = gallery.mean(axis=0)
        parts = []
        for some in slices(len(gallery), block):
            vectors = gallery[some] - centre
            squares = _squares(vectors)
            wide = np.concatenate([vectors, -squares[:, None] / 2], axis=1, dtype=np.float32)
            parts.append(_Part(some.start, tiles.load(wide), np.sqrt(squares.max())))
        return cls(gallery, records, kept, own, centre, parts)


class _Block:
    """The search of some queries: the nearest found so far, and candidates that may be nearer.

    Args:
      queries: [q, dim] float32 of unit length.
      records: [q] record numbers.
      positions: [q, k] int64 of -1, to be filled.
    """

    def __init__(self, queries: np.ndarray, records: np.ndarray, positions: np.ndarray) -> None:
        self._queries = queries
        self._records = records
        self._positions = positions
        self._squared = np.full(positions.shape, np.inf, np.float64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._count = 0

    def search(self, opened: _Opened, tiles: Tiles) -> np.ndarray:
        """Fills the positions; returns the distances.

        Nearness is q.g - |g|^2 / 2 = (|q|^2 - squared distance) / 2: one product of vectors that
        are longer by one.
        """
        moved = self._queries - opened.centre
        squares = _squares(moved)
        lengths = np.sqrt(squares)
        ones = np.ones([len(moved), 1], np.float32)
        loaded = tiles.load(np.concatenate([moved, ones], axis=1))
        # A nearness that k pictures reach which may be found.
        reached = np.full(len(moved), -np.inf)
        for part in opened.parts:
            product = tiles.product(loaded, part.vectors)
            slack = _slack(moved.shape[1], lengths, part.longest, tiles.input_rounding)
            if np.isneginf(reached).any():
                # Of those that reach it, as many as are left out may be the query's own.
                wanted = self._positions.shape[1] + opened.own
                reached = np.maximum(reached, tiles.reached(product, wanted) - slack)
            bound = (reached - slack).astype(np.float32)
            rows, places = tiles.passing(product, bound)
            self._add(opened, rows, places + part.start)
            if self._count >= self._positions.size:
                self._settle(opened.gallery)
                reached = np.maximum(reached, (squares - self._squared[:, -1]) / 2)
        self._settle(opened.gallery)
        found = self._positions >= 0
        self._positions[found] = opened.positions[self._positions[found]]
        return np.sqrt(self._squared).astype(np.float32)

    def _add(self, opened: _Opened, rows: np.ndarray, places: np.ndarray) -> None:
        others = self._records[rows] != opened.records[places]
        if not others.all():
            rows, places = rows[others], places[others]
        self._waiting.append((rows, places))
        self._count += len(rows)

    def _settle(self, gallery: np.ndarray) -> None:
        """Computes the distances of all candidates and keeps the k nearest."""
        if not self._waiting:
            return
        rows, places = (np.concatenate(parts) for parts in zip(*self._waiting))
        self._waiting, self._count = [], 0
        squared = _squared_distances(self._queries, gallery, rows, places)
        # Candidates come in the order of places: one that ties with the last of k comes too late.
        nearer = squared < self._squared[rows, -1]
        kept = self._positions >= 0
        rows = np.concatenate([np.nonzero(kept)[0], rows[nearer]])
        places = np.concatenate([self._positions[kept], places[nearer]])
        squared = np.concatenate([self._squared[kept], squared[nearer]])
        # Sorting is stable, so that ties stay in the order of places.
        order = np.argsort(squared, kind="stable")
        # Small integers are sorted by counting them.
        few = rows.astype(np.min_scalar_type(len(kept)))
        order = order[np.argsort(few[order], kind="stable")]
        counts = np.bincount(rows, minlength=len(kept))
        rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, rank = order[rank < kept.shape[1]], rank[rank < kept.shape[1]]
        self._positions[rows[order], rank] = places[order]
        self._squared[rows[order], rank] = squared[order]


def _slack(dim: int, lengths: np.ndarray, longest: float, input_rounding: float) -> np.ndarray:
    """Returns [q] by how much two values of nearness may be off together.

    A float32 product of n terms is off by at most n * 2**-24 times the sum of their absolute
    values, in whatever order they are added (Higham, "Accuracy and Stability of Numerical
    Algorithms", 3.1), and by what its factors were rounded before; other roundings add a few units
    of 2**-24 of the squares. Both a pair and the bound it is held against may be off by that much.

    Args:
      dim: of the vectors.
      lengths: [q] of the queries.
      longest: length of the longest gallery vector.
      input_rounding: as in `Tiles`.
    """
    terms = lengths * longest + longest**2 / 2
    of_products = (dim + 9) * 2.0**-24 + 2 * input_rounding
    return 2 * (of_products * terms + 2.0**-22 * (lengths**2 + longest**2)) + _UNDERFLOW


def _squared_distances(
    queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray, places: np.ndarray
) -> np.ndarray:
    squared = np.empty(len(rows), np.float64)
    for some in slices(len(rows), _PAIRS_AT_ONCE):
        difference = np.subtract(queries[rows[some]], gallery[places[some]], dtype=np.float64)
        squared[some] = np.einsum("ij,ij->i", difference, difference)
    return squared


def _squares(vectors: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)


def _places_among_equals(vectors: np.ndarray) -> np.ndarray:
    """Returns [n] how many vectors before it each one is equal to."""
    if not len(vectors):
        return np.zeros(0, np.int64)
    rows = np.ascontiguousarray(vectors).view(f"V{vectors.shape[1] * vectors.itemsize}")[:, 0]
    _, group = np.unique(rows, return_inverse=True)
    order = np.argsort(group, kind="stable")
    place = np.empty(len(vectors), np.int64)
    place[order] = np.arange(len(vectors)) - np.searchsorted(group[order], group[order])
    return place


def _times_in(values: np.ndarray) -> np.ndarray:
    return np.unique(values, return_counts=True)[1]


def _on_all_cores(work: Callable[[slice], None], parts: Sequence[slice], pairs: int) -> None:
    """Does all parts of the work, on as many threads as there are cores if it is much."""
    cores = usable_cores()
    if pairs < _PAIRS_FOR_THREADS or len(parts) < 2 or cores == 1:
        for part in parts:
            work(part)
        return
    # Each thread multiplies for itself: what a library's own threads add would only wait.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as threads:
        for _ in threads.map(work, parts):
            pass


def _checked_records(what: str, embeddings: np.ndarray, records: np.ndarray) -> np.ndarray:
    records = np.asarray(records)
    if records.shape != np.shape(embeddings)[:1]:
        raise UserError(
            f"{what}: {np.shape(embeddings)[0]} embeddings but records of shape "
            f"{records.shape}; one record number per embedding is needed"
        )
    return records


def _checked_block(given: int | None, default: int) -> int:
    if given is not None and given < 1:
        raise UserError(f"blocks of {given} pictures: both must be at least 1")
    return default if given is None else given
