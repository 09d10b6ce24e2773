"""The joint space of several teachers: what all of them say of an image, in one vector.

Side by side, embeddings of unit length have squared distances that are the sum of those of the
parts: a search by them is a vote of the teachers. Most of that is kept by as many principal
directions as an embedding is long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def joint_embeddings(parts: Sequence[np.ndarray], fitted: np.ndarray, dim: int) -> np.ndarray:
    """Returns the embeddings of several teachers as one of a given length.

    Directions are those of the scatter around the origin, and not around the mean, so that cosines
    are kept rather than distances to the mean. They are fitted to some of the images, and all are
    projected.

    Args:
      parts: of each teacher float32 [n, own length]; its length counts as its weight.
      fitted: bool [n], the images that the directions are fitted to, at least one.
      dim: length of the result; zeros fill what the parts together do not have.

    Returns:
      float32 [n, dim], of unit length. An image that lies in none of the directions is zero.

    Example:
      >>> one, other = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)
      >>> joint = joint_embeddings([one, other], np.array([True, True]), dim=2)
      >>> np.round(joint @ joint.T, 6) + 0.0
      array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    wide = np.hstack(parts).astype(np.float64)
    scatter = wide[fitted].T @ wide[fitted]
    # Rising eigenvalues: the last directions are the longest.
    directions = np.linalg.eigh(scatter)[1][:, ::-1][:, :dim]
    projected = wide @ directions
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    unit = np.divide(projected, lengths, out=np.zeros_like(projected), where=lengths > 1e-12)
    return np.pad(unit, ((0, 0), (0, dim - unit.shape[1]))).astype(np.float32)
