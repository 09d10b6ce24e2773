"""Exact nearest neighbours between L2-normalised embeddings, in bounded memory."""

from __future__ import annotations

import numpy as np

from apparel_embed.errors import UserError

# Candidate pairs whose distance is recomputed at once: bounds memory, changes no result.
_PAIRS_AT_ONCE = 16384
# More than a product of float32 numbers can lose by being too small for float32.
_UNDERFLOW = 1e-37


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
        raise UserError(f"{what}: shape {embeddings.shape}; allowed is [n, dim], dim at least 1")
    for fault, rows in (
        ("hold NaN or infinite numbers", ~np.isfinite(embeddings).all(axis=1)),
        ("are all zero and have no direction to compare", ~embeddings.any(axis=1)),
    ):
        if rows.any():
            raise UserError(
                f"{what}: {rows.sum()} of {len(embeddings)} embeddings {fault} "
                f"(the first in row {rows.argmax()})"
            )


def unit_length(embeddings: np.ndarray, what: str = "embeddings") -> np.ndarray:
    """Returns embeddings scaled to Euclidean length 1.

    Args:
      embeddings: [n, dim] real numbers, dim at least 1.
      what: what the rows are, for error messages.

    Returns:
      [n, dim] float32, a copy.

    Raises:
      UserError: not two-dimensional, or rows without direction (NaN, infinite or all zero).
    """
    require_directions(embeddings, what)
    wide = np.array(embeddings, dtype=np.float64)
    # Scaling by the largest entry first keeps the squares from running over or under.
    wide /= np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    return wide.astype(np.float32)


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    query_records: np.ndarray,
    gallery_records: np.ndarray,
    *,
    query_block: int = 256,
    gallery_block: int = 8192,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest gallery pictures of every query by distance of unit vectors.

    A float32 product of matrices picks the candidates, with a margin as wide as its rounding can
    be; distances of these few are then computed one by one in float64. So the result depends
    neither on the sizes of blocks nor on the linear algebra library, and equal embeddings tie
    exactly. Ties go to the smaller gallery position.

    Args:
      queries: [q, dim] embeddings of any length above zero.
      gallery: [g, dim] embeddings of any length above zero.
      k: how many neighbours to find, at least 1.
      query_records: [q] int64, record numbers; a query never finds its own record.
      gallery_records: [g] int64, record numbers.
      query_block: queries handled at once.
      gallery_block: gallery pictures handled at once.

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
    query_records, gallery_records = np.asarray(query_records), np.asarray(gallery_records)
    _check(queries, gallery, k, query_records, gallery_records)
    if min(query_block, gallery_block) < 1:
        raise UserError(f"blocks of {query_block} x {gallery_block}: both must be at least 1")
    queries = unit_length(queries, "query embeddings")
    gallery = unit_length(gallery, "gallery embeddings")
    k = min(k, len(gallery))
    kept = _without_idle_doubles(gallery, gallery_records, k)
    gallery, gallery_records = gallery[kept], gallery_records[kept]
    positions = np.full((len(queries), k), -1, np.int64)
    squared = np.full((len(queries), k), np.inf, np.float64)
    # Distances do not change when all vectors move alike, and products of short vectors are
    # rounded less: a model that maps everything into one corner stays cheap to judge.
    centre = gallery.mean(axis=0) if k else np.float32(0)
    for q in range(0, len(queries), query_block):
        some = slice(q, q + query_block)
        for g in range(0, len(gallery), gallery_block):
            part = slice(g, g + gallery_block)
            own = query_records[some, None] == gallery_records[None, part]
            rows, columns = _candidates(
                queries[some] - centre, gallery[part] - centre, own, squared[some]
            )
            exact = _squared_distances(queries[some], gallery[part], rows, columns)
            _keep_nearest(positions[some], squared[some], rows, columns + g, exact)
    found = positions >= 0
    positions[found] = kept[positions[found]]
    return positions, np.sqrt(squared).astype(np.float32)


def _check(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    query_records: np.ndarray,
    gallery_records: np.ndarray,
) -> None:
    if k < 1:
        raise UserError(f"k is {k}; allowed is 1 or more")
    if np.shape(queries)[1:] != np.shape(gallery)[1:]:
        raise UserError(
            f"queries of shape {np.shape(queries)} and a gallery of shape {np.shape(gallery)} "
            "cannot be compared: the last dimension must be the same"
        )
    for what, embeddings, records in (
        ("query", queries, query_records),
        ("gallery", gallery, gallery_records),
    ):
        if records.shape != np.shape(embeddings)[:1]:
            raise UserError(
                f"{what}: {np.shape(embeddings)[0]} embeddings but records of shape "
                f"{records.shape}; one record number per embedding is needed"
            )


def _without_idle_doubles(gallery: np.ndarray, records: np.ndarray, k: int) -> np.ndarray:
    """Returns rising positions of the gallery without pictures that no query can ever find.

    Of equal embeddings a query finds the first k that are not its own record. Without this a model
    that gives one embedding to everything would have every pair's distance computed one by one.
    """
    if not len(gallery):
        return np.zeros(0, np.int64)
    rows = np.ascontiguousarray(gallery).view(f"V{gallery.shape[1] * gallery.itemsize}")[:, 0]
    _, group = np.unique(rows, return_inverse=True)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(gallery), np.int64)
    rank[order] = np.arange(len(gallery)) - np.searchsorted(group[order], group[order])
    own_at_most = np.unique(records, return_counts=True)[1].max()
    return np.flatnonzero(rank < k + own_at_most)


def _candidates(
    queries: np.ndarray, gallery: np.ndarray, own: np.ndarray, squared: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns row and column of every pair that may belong to the k nearest.

    Nearness is q.g - |g|^2 / 2 = (|q|^2 - squared distance) / 2. A float32 product of `dim` terms
    is off by at most dim * 2**-24 * |q| |g| (Higham, "Accuracy and Stability of Numerical
    Algorithms", 3.1); other roundings add a few units of 2**-24 of the squares. Both a pair and the
    bound it is held against may be off by that much.
    """
    query_squares = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
    gallery_squares = np.einsum("ij,ij->i", gallery, gallery, dtype=np.float64)
    nearness = queries @ gallery.T
    nearness -= (gallery_squares / 2).astype(np.float32)
    nearness[own] = -np.inf
    k = squared.shape[1]
    others = nearness.shape[1] - k
    bound = (query_squares - squared[:, -1]) / 2
    if others > 0:
        bound = np.maximum(bound, np.partition(nearness, others, axis=1)[:, others])
    longest = gallery_squares.max()
    products = (queries.shape[1] + 8) * np.sqrt(query_squares * longest)
    slack = 2.0**-23 * (products + 4 * (query_squares + longest)) + _UNDERFLOW
    bound = (bound - slack).astype(np.float32)
    return np.nonzero((nearness >= bound[:, None]) & (nearness > -np.inf))


def _squared_distances(
    queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    squared = np.empty(len(rows), np.float64)
    for start in range(0, len(rows), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        difference = np.subtract(queries[rows[some]], gallery[columns[some]], dtype=np.float64)
        squared[some] = np.einsum("ij,ij->i", difference, difference)
    return squared


def _keep_nearest(
    positions: np.ndarray,
    squared: np.ndarray,
    new_rows: np.ndarray,
    new_positions: np.ndarray,
    new_squared: np.ndarray,
) -> None:
    """Merges new pairs into the running k nearest, in place."""
    kept = positions >= 0
    rows = np.concatenate([np.nonzero(kept)[0], new_rows])
    all_positions = np.concatenate([positions[kept], new_positions])
    all_squared = np.concatenate([squared[kept], new_squared])
    order = np.lexsort((all_positions, all_squared, rows))
    rows = rows[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    keep = rank < positions.shape[1]
    positions[rows[keep], rank[keep]] = all_positions[order][keep]
    squared[rows[keep], rank[keep]] = all_squared[order][keep]
