"""Spaces of teachers: rotated onto one reference, and joined.

Distances do not depend on how a specialist's space is rotated, so two specialists put similar
images in unrelated places, and a student has to learn a different map for each vertical. Rotated
onto one reference space, their targets agree as far as possible, and the student has less to learn.

The squared distance of concatenated unit-length embeddings is the sum of those of the parts, so a
search with them is a vote of the teachers. Projecting them to the dimensions of one embedding along
principal directions keeps most of that.
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
      embeddings: float32 [n, dim], the embeddings to map.
      reference: float32 [n, dim], embeddings of the same images in the reference space.

    Returns:
      float32 [dim, dim] orthogonal matrix Q that minimises the Frobenius norm of
      `embeddings @ Q - reference`.
    """
    rotation, _ = orthogonal_procrustes(embeddings.astype(np.float64), reference.astype(np.float64))
    return rotation.astype(np.float32)


def mean_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mean cosine between the unit-length rows of two arrays [n, dim]."""
    return float(np.mean(np.sum(first * second, axis=1)))


def joint_embeddings(parts: Sequence[np.ndarray], fitted: np.ndarray, dim: int) -> np.ndarray:
    """Returns the joint embeddings of several teachers with a given number of dimensions.

    The principal directions are those of the scatter around the origin instead of the mean, which
    preserves cosines rather than distances to the mean.

    Args:
      parts: embeddings of each teacher, float32 [n, own dim]; the norm of rows is their weight.
      fitted: bool [n], the images that the directions are fitted to, at least one.
      dim: dimensions of the result, padded with zeros if the parts have fewer in total.

    Returns:
      float32 [n, dim], of unit length. An image orthogonal to all the directions is zero.

    Examples:
      >>> one, other = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)
      >>> joint = joint_embeddings([one, other], np.array([True, True]), dim=2)
      >>> np.round(joint @ joint.T, 6) + 0.0
      array([[1., 0.],
             [0., 1.]], dtype=float32)
    """
    wide = np.hstack(parts).astype(np.float64)
    scatter = wide[fitted].T @ wide[fitted]
    # Eigenvalues ascend, so the last directions have the most scatter.
    directions = np.linalg.eigh(scatter)[1][:, ::-1][:, :dim]
    projected = wide @ directions
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    unit = np.divide(projected, lengths, out=np.zeros_like(projected), where=lengths > 1e-12)
    return np.pad(unit, ((0, 0), (0, dim - unit.shape[1]))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class FrozenBackbone:
    """The backbone before any training: a reference that needs no training.

    Attributes:
      model: its architecture.
      init_weights: as in `load_initial_weights`; with "none" they are random.
      seed: seed of random weights.
    """

    model: ModelConfig
    init_weights: str = "none"
    seed: int = 0


def reference_embeddings(
    reference: Path | FrozenBackbone, dataset: PreparedDataset, records: np.ndarray, dim: int
) -> np.ndarray:
    """Embeds images in the space of a reference.

    Args:
      reference: directory of a model, or the frozen backbone. The backbone's pooled features are
        centred, projected onto their first `dim` principal components and scaled to unit length.
        Without centring, all would point the same way, since features are mostly positive.
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      dim: dimensions of the backbone's embeddings; a model has its own.

    Returns:
      float32 [n, dim]. An image whose features equal the mean is zero.
    """
    if isinstance(reference, Path):
        return embed_by_model(dataset, records, reference).embeddings
    features = embed_by_frozen_backbone(
        dataset, records, reference.model, reference.init_weights, reference.seed
    ).embeddings
    if len(features) == 1:  # It equals the mean.
        return np.zeros([1, dim], np.float32)
    # Imported here because the import takes seconds.
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    kept = min(dim, *features.shape)
    # The covariance's size depends on the features' dimensions, not on the number of images.
    pca = PCA(kept, svd_solver="covariance_eigh")
    components = normalize(pca.fit_transform(features.astype(np.float64)))
    return np.pad(components, ((0, 0), (0, dim - kept))).astype(np.float32)
