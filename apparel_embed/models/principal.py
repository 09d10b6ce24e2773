"""A projection initialised to the principal directions of a pretrained backbone's features.

A random projection preserves distances between features only in part, and a short training on a
small catalogue does not repair that. No linear map to as few dimensions preserves more.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from apparel_embed.models.embedding import head_layers


def project_principally(model: tf.keras.Model, features: np.ndarray) -> None:
    """Sets a model's projection to the principal directions of images' features.

    Norms between trunk and projection get the features' statistics. The projection of the centred
    features is orthogonal, so cosines of embeddings start as those of centred features.

    Args:
      model: built by `build_embedding_model`; its weights are set in place.
      features: float32 [n, features] from its `trunk_model`, n at least 1. Dimensions of the
        embedding beyond the number of features become zero.

    Examples:
      >>> from apparel_embed.models.embedding import (
      ...     ModelConfig, build_embedding_model, trunk_model)
      >>> model = build_embedding_model(ModelConfig(image_size=32, embedding_dim=8))
      >>> images = tf.random.uniform([20, 32, 32, 3], maxval=255.0)
      >>> project_principally(model, trunk_model(model)(images).numpy())
    """
    x = features
    *between, projection = head_layers(model)
    for layer in between:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.moving_mean.assign(features.mean(axis=0))
            layer.moving_variance.assign(features.var(axis=0))
        x = layer(x, training=False)
    pooled = np.asarray(x, np.float64)
    mean = pooled.mean(axis=0)
    directions = _directions(pooled - mean, projection.units)
    projection.kernel.assign(directions.astype(np.float32))
    projection.bias.assign((-mean @ directions).astype(np.float32))


def _directions(centred: np.ndarray, count: int) -> np.ndarray:
    """Returns float64 [features, count]: orthogonal, by descending variance, padded with zeros."""
    # Not scikit-learn's PCA, which has at most as many components as images: a dimension that is
    # zero for all images has no gradient and would stay zero. eigh sorts eigenvalues ascending.
    longest = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    # Signs are arbitrary and differ between processors: make each direction's peak positive.
    peaks = longest[np.abs(longest).argmax(axis=0), np.arange(longest.shape[1])]
    signed = longest * np.where(peaks < 0, -1.0, 1.0)
    return np.pad(signed, ((0, 0), (0, count - signed.shape[1])))
