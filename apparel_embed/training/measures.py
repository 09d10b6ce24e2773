"""What a batch's embeddings tell of a training, as plain functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from apparel_embed.losses.distances import pairwise_distances

_MOST_PICTURES = 1024
"""Of a larger batch the first so many are measured: distances grow with their number squared."""


@dataclasses.dataclass(frozen=True, eq=False)
class Measures:
    """Numbers that describe a batch, by name.

    Attributes:
      scalars: those that could be measured.
      histograms: float [n] of values.
    """

    scalars: Mapping[str, float]
    histograms: Mapping[str, np.ndarray]


def active_share(distances: np.ndarray, labels: np.ndarray, margin: float) -> float | None:
    """Returns the share of a batch's triplets that still cost something.

    A triplet is an anchor a, another picture p of its item and a picture n of another one; it is
    active if d(a, p) + margin > d(a, n). All triplets count, whichever of them the loss mines.

    Args:
      distances: float [n, n].
      labels: [n], item of each picture.
      margin: by how much a negative should be farther than a positive.

    Returns:
      0 to 1; None where there are no triplets.
    """
    active = every = 0
    for anchor, label in enumerate(labels):
        same = labels == label
        negatives = np.sort(distances[anchor, ~same])
        same[anchor] = False
        positives = distances[anchor, same]
        active += int(np.searchsorted(negatives, positives + margin, side="left").sum())
        every += len(positives) * len(negatives)
    return active / every if every else None


def spread(embeddings: np.ndarray) -> float:
    """Returns how far embeddings lie apart: the root of their mean squared distance to their mean.

    Args:
      embeddings: float [n, dim], n at least 1.

    Returns:
      0 where all are equal. Of unit vectors at most 1, where their mean is the origin; then the
      mean squared distance of two is 2.
    """
    points = embeddings.astype(np.float64)
    return float(np.sqrt(np.mean(np.sum((points - points.mean(axis=0)) ** 2, axis=1))))


def triplet_measures(
    labels: np.ndarray, embeddings: np.ndarray, norms: np.ndarray, *, margin: float, distance: str
) -> Measures:
    """Returns the measures of a batch of triplets.

    Args:
      labels: int [n], item of each picture.
      embeddings: float32 [n, dim], of unit length.
      norms: float32 [n], lengths of the embeddings before they were scaled to 1.
      margin: of the loss.
      distance: of the loss, a name in `DISTANCES`.
    """
    labels, embeddings = labels[:_MOST_PICTURES], embeddings[:_MOST_PICTURES]
    distances = pairwise_distances(embeddings, distance).numpy()
    # Each pair once.
    ones, others = np.triu_indices(len(labels), k=1)
    between, is_positive = distances[ones, others], labels[ones] == labels[others]
    positives, negatives = between[is_positive], between[~is_positive]
    scalars = {
        "triplets/active_share": active_share(distances, labels, margin),
        "distances/mean_to_positives": _mean(positives),
        "distances/mean_to_negatives": _mean(negatives),
        **_of_embeddings(embeddings, norms),
    }
    return Measures(
        {name: value for name, value in scalars.items() if value is not None},
        {
            "distances/to_positives": positives,
            "distances/to_negatives": negatives,
            "embeddings/norms": norms,
        },
    )


def target_measures(targets: np.ndarray, embeddings: np.ndarray, norms: np.ndarray) -> Measures:
    """Returns the measures of a student's batch.

    Args:
      targets: float32 [n, dim], the embeddings that specialists give; of any length but 0.
      embeddings: float32 [n, dim], the student's, of unit length.
      norms: float32 [n], lengths of the student's embeddings before they were scaled to 1.
    """
    distances = np.linalg.norm(targets - embeddings, axis=1)
    lengths = np.linalg.norm(targets, axis=1) * np.linalg.norm(embeddings, axis=1)
    cosines = np.sum(targets * embeddings, axis=1) / np.maximum(lengths, 1e-12)
    return Measures(
        {
            "targets/mean_cosine": float(cosines.mean()),
            "targets/mean_distance": float(distances.mean()),
            "targets/spread": spread(targets),
            **_of_embeddings(embeddings, norms),
        },
        {"targets/distances": distances, "embeddings/norms": norms},
    )


def _of_embeddings(embeddings: np.ndarray, norms: np.ndarray) -> dict[str, float]:
    return {
        "embeddings/spread": spread(embeddings),
        "embeddings/mean_norm_before_scaling": float(norms.mean()),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
