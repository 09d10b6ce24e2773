"""Aligning specialists' spaces before a student learns them.

No distance sees how a specialist's space is rotated, so two specialists put similar pictures in
unrelated places, and a student has to learn a different map for each vertical. Rotated onto one
reference space their targets agree wherever they can, and the student has less to learn.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import orthogonal_procrustes


def alignment_rotation(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the orthogonal map that brings embeddings closest to a reference.

    Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem".

    Args:
      embeddings: float32 [n, dim], what is to be mapped.
      reference: float32 [n, dim], embeddings of the same pictures in the reference space.

    Returns:
      float32 [dim, dim] orthogonal matrix Q that minimises the Frobenius norm of
      `embeddings @ Q - reference`.
    """
    rotation, _ = orthogonal_procrustes(embeddings.astype(np.float64), reference.astype(np.float64))
    return rotation.astype(np.float32)


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean cosine between rows of unit length of two arrays [n, dim]."""
    return float(np.mean(np.sum(first * second, axis=1)))
