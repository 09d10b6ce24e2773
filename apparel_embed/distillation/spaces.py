"""Spaces of teachers: rotated onto one reference, and joined.

No distance sees how a specialist's space is rotated, so two specialists put similar images in
unrelated places, and a student has to learn a different map for each vertical. Rotated onto one
reference space their targets agree wherever they can, and the student has less to learn.

Side by side, embeddings of unit length have squared distances that are the sum of those of the
parts: a search by them is a vote of the teachers. Most of that is kept by as many principal
directions as an embedding is long.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.linalg import orthogonal_procrustes

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.models import embed_by_frozen_backbone, embed_by_model
from apparel_embed.models.config import ModelConfig


def alignment_rotation(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns the orthogonal map that brings embeddings closest to a reference.

    Schoenemann 1966, "A generalized solution of the orthogonal Procrustes problem".

    Args:
      embeddings: float32 [n, dim], what is to be mapped.
      reference: float32 [n, dim], embeddings of the same images in the reference space.

    Returns:
      float32 [dim, dim] orthogonal matrix Q that minimises the Frobenius norm of
      `embeddings @ Q - reference`.
    """
    rotation, _ = orthogonal_procrustes(embeddings.astype(np.float64), reference.astype(np.float64))
    return rotation.astype(np.float32)


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean cosine between rows of unit length of two arrays [n, dim]."""
    return float(np.mean(np.sum(first * second, axis=1)))


def joint_embeddings(parts: Sequence[np.ndarray], fitted: np.ndarray, dim: int) -> np.ndarray:
    """Returns the embeddings of several teachers as one of a given length.

    Directions are those of the scatter around the origin, and not around the mean, so that cosines
    are kept rather than distances to the mean.

    Args:
      parts: of each teacher float32 [n, own length]; its length counts as its weight.
      fitted: bool [n], the images that the directions are fitted to, at least one.
      dim: length of the result; zeros fill what the parts together do not have.

    Returns:
      float32 [n, dim], of unit length. An image that lies in none of the directions is zero.

    Examples:
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


@dataclasses.dataclass(frozen=True)
class FrozenBackbone:
    """The backbone before any training: a reference that costs no training.

    Attributes:
      model: its architecture.
      init_weights: as in `load_initial_weights`; with "none" they are random.
      seed: of random weights.
    """

    model: ModelConfig
    init_weights: str = "none"
    seed: int = 0


def reference_embeddings(
    reference: Path | FrozenBackbone, dataset: PreparedDataset, records: np.ndarray, dim: int
) -> np.ndarray:
    """Embeds images in the space of a reference.

    Args:
      reference: directory of a model, or the frozen backbone. The latter's are its pooled features
        without their mean and along their `dim` principal components, brought to unit length:
        features of a network are mostly positive, so that else all would point the same way.
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      dim: how long embeddings are to be; nothing to a model, whose length is its own.

    Returns:
      float32 [n, dim]. An image whose features are the mean is zero.
    """
    if isinstance(reference, Path):
        return embed_by_model(dataset, records, reference).embeddings
    features = embed_by_frozen_backbone(
        dataset, records, reference.model, reference.init_weights, reference.seed
    ).embeddings
    if len(features) == 1:  # It is the mean.
        return np.zeros([1, dim], np.float32)
    # Here, as it takes seconds that a start need not.
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    kept = min(dim, *features.shape)
    # By the scatter, which is as large as the square of the features' length, not their number.
    pca = PCA(kept, svd_solver="covariance_eigh")
    components = normalize(pca.fit_transform(features.astype(np.float64)))
    return np.pad(components, ((0, 0), (0, dim - kept))).astype(np.float32)
