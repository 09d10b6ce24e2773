"""References: spaces onto which those of specialists are rotated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.models import embed_by_frozen_backbone, embed_by_model
from apparel_embed.models.embedding import ModelConfig


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
    reference: Path | FrozenBackbone,
    dataset: PreparedDataset,
    groups: Sequence[np.ndarray],
    dim: int,
) -> list[np.ndarray]:
    """Embeds each group's pictures in the one space of a reference.

    Args:
      reference: directory of a model, or the frozen backbone. The latter's are its pooled
        features, without the mean of all groups' and along their `dim` principal components,
        brought to unit length: features of a network are mostly positive, so that without their
        mean taken off all would point the same way.
      dataset: a prepared dataset.
      groups: of each group int64 [n] record numbers.
      dim: how long embeddings are to be; nothing to a model, whose length is its own.

    Returns:
      Of each group float32 [n, dim]. A picture whose features are the mean is zero.
    """
    records = np.concatenate(groups)
    if isinstance(reference, Path):
        embeddings = embed_by_model(dataset, records, reference).embeddings
    else:
        embeddings = _principal_components(
            embed_by_frozen_backbone(
                dataset, records, reference.model, reference.init_weights, reference.seed
            ).embeddings,
            dim,
        )
    return np.split(embeddings, np.cumsum([len(group) for group in groups])[:-1])


def _principal_components(features: np.ndarray, dim: int) -> np.ndarray:
    """Returns features [n, length] as float32 [n, dim] of unit length; zeros beyond what there is.

    The directions come of the scatter, which is as large as the square of the features' length, and
    not of the features.
    """
    if len(features) == 1:  # It is the mean.
        return np.zeros([1, dim], np.float32)
    # Here, as it takes seconds that a start need not.
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    kept = min(dim, *features.shape)
    pca = PCA(kept, svd_solver="covariance_eigh")
    components = normalize(pca.fit_transform(features.astype(np.float64)))
    return np.pad(components, ((0, 0), (0, dim - kept))).astype(np.float32)
