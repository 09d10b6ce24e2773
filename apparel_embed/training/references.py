"""References: spaces onto which those of specialists are rotated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    frozen_feature_model,
    load_embedding_model,
)
from apparel_embed.training.alignment import principal_directions
from apparel_embed.training.strategy import start_afresh


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
    if isinstance(reference, Path):
        model, _ = load_embedding_model(reference)
    else:
        start_afresh(reference.seed)
        model = build_embedding_model(reference.model, reference.init_weights)
        model = frozen_feature_model(model)
    embedder = Embedder(model)
    embedded = [embedder.records(dataset, records) for records in groups]
    if isinstance(reference, Path):
        return embedded
    mean, directions = principal_directions(np.concatenate(embedded), dim)
    return [_to_unit_length((features - mean) @ directions) for features in embedded]


def _to_unit_length(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
