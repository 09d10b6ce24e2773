"""What embeddings have to be to be compared, and at unit length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from apparel_embed.common.errors import UserError

_ROWS_AT_ONCE = 1 << 16


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
    infinite, zero = np.zeros((2, len(embeddings)), bool)
    for some in slices(len(embeddings), _ROWS_AT_ONCE):
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
    embeddings = np.asarray(embeddings)
    unit = np.empty(embeddings.shape, np.float32)
    for some in slices(len(embeddings), _ROWS_AT_ONCE):
        wide = np.array(embeddings[some], dtype=np.float64)
        # Scaling by the largest entry first keeps the squares from running over or under.
        wide /= np.abs(wide).max(axis=1, keepdims=True)
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        unit[some] = wide
    return unit


def slices(count: int, at_once: int) -> Iterator[slice]:
    """Returns the parts of `count` rows, `at_once` each, but for the last."""
    return (slice(start, start + at_once) for start in range(0, count, at_once))
