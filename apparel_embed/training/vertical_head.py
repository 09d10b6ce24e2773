"""Training of the vertical head, after the student and without changing it.

The student is trained to place images within their vertical, and its embedding has little room for
anything else, so verticals may overlap in it. The features before the projection still separate
them, and a linear classifier on these is enough. It is trained after the student: trained together,
it would influence the features and change the embedding.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.routing import measure_routing
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.models.vertical_head import VerticalHead, feature_model

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

# Inverse strengths of the regularisation. The one with the highest accuracy on split val is used,
# or the middle one if the split has no images.
_STRENGTHS = (0.01, 0.1, 1.0)
_ITERATIONS = 300


def train_vertical_head(
    dataset: PreparedDataset, model: Path
) -> tuple[VerticalHead, Mapping[str, Any]]:
    """Fits a multinomial logistic regression of the vertical on a model's pooled features.

    Args:
      dataset: a prepared dataset. The head learns from splits train and unlabelled; split val
        decides the regularisation and the minimum confidence for routing searches.
      model: directory of the embedding model.

    Returns:
      The head and its report.

    Raises:
      UserError: if there are training images of fewer than two verticals.
    """
    # Imported here because it takes seconds.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    tf.keras.backend.clear_session()
    loaded, _ = load_embedding_model(model)
    embedder = Embedder(feature_model(loaded))
    records = np.concatenate([dataset.select(split=split) for split in ("train", UNLABELLED)])
    labels = dataset.column("vertical")[records].astype(str)
    verticals = np.unique(labels)
    if len(verticals) < 2:
        raise UserError(
            f"{dataset.directory}: a vertical head needs training images of two or more verticals, "
            f"got {len(verticals)}"
        )
    scaler = StandardScaler()
    features = scaler.fit_transform(embedder.records(dataset, records))
    val = evaluation_set(dataset, "val")
    val = val.only(np.isin(val.verticals.astype(str), verticals))
    val_features = embedder.records(dataset, val.records)

    tried = []
    for strength in _STRENGTHS if len(val) else (_STRENGTHS[1],):
        found = LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(features, labels)
        right = 0.0
        if len(val):
            right = found.score(scaler.transform(val_features), val.verticals.astype(str))
        tried.append((found, right))
    # Takes the first of equals.
    best, accuracy = max(tried, key=lambda one: one[1])
    head = _head(best, scaler)
    embeddings = Embedder(loaded).records(dataset, val.records)
    routing = measure_routing(embeddings, *head.predict(val_features), val)
    report = {
        "train_images": len(records),
        "val_images": len(val),
        "strength": best.C,
        "train_accuracy": float(best.score(features, labels)),
        "validation_accuracy": float(accuracy) if len(val) else None,
        **dataclasses.asdict(routing),
        "searches": routing.sentence(),
    }
    return dataclasses.replace(head, routing_confidence=routing.routing_confidence), report


def _head(regression: LogisticRegression, scaler: StandardScaler) -> VerticalHead:
    """Returns the head, with the scaling of features folded into its weights."""
    weights, bias = regression.coef_.T, regression.intercept_
    if len(regression.classes_) == 2:
        # scikit-learn stores only the coefficients of the second class.
        weights, bias = np.hstack([0 * weights, weights]), np.append(0 * bias, bias)
    weights = weights / scaler.scale_[:, np.newaxis]
    bias = bias - scaler.mean_ @ weights
    return VerticalHead(
        tuple(map(str, regression.classes_)), weights.astype(np.float32), bias.astype(np.float32)
    )
