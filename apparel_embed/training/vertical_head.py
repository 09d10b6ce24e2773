"""Training of the vertical head, after the student and without changing it.

The student is trained to place images inside their vertical, and its embedding has room for
little else: verticals may overlap in it. The features before the projection still tell them apart,
so a linear classifier of these is all it takes. It is trained when the student is finished: trained
together, it would pull at the features and change the embedding.
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

# Inverse strength of the regularisation; the one of highest accuracy on val is taken, without
# images there the middle one.
_STRENGTHS = (0.01, 0.1, 1.0)
_ITERATIONS = 300


def train_vertical_head(
    dataset: PreparedDataset, model: Path
) -> tuple[VerticalHead, Mapping[str, Any]]:
    """Fits a multinomial logistic regression of the vertical on a model's pooled features.

    Args:
      dataset: a prepared dataset; splits train and unlabelled are learnt from; by val is chosen
        how strongly to regularise, and measured from what confidence on searches are routed.
      model: directory of the embedding model.

    Returns:
      The head, and what to report of it.

    Raises:
      UserError: if there are training images of fewer than two verticals.
    """
    # Here, as it takes seconds that a start need not.
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
            f"{dataset.directory}: has training images of {len(verticals)} verticals; a vertical "
            "head needs two or more"
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
    # Of equals the first.
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
    """Returns the head, the scaling of features put into its weights."""
    weights, bias = regression.coef_.T, regression.intercept_
    if len(regression.classes_) == 2:
        # scikit-learn keeps only what speaks for the second class.
        weights, bias = np.hstack([0 * weights, weights]), np.append(0 * bias, bias)
    weights = weights / scaler.scale_[:, np.newaxis]
    bias = bias - scaler.mean_ @ weights
    return VerticalHead(
        tuple(map(str, regression.classes_)), weights.astype(np.float32), bias.astype(np.float32)
    )
