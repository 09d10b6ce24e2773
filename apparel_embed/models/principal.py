"""A projection that starts as the principal directions of what a pretrained backbone sees.

A random one keeps features' distances in part only, and a short training on a small catalogue
leaves that noise where it is. No linear map to so few dimensions keeps more than these.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from apparel_embed.models.embedding import head_layers


def project_principally(model: tf.keras.Model, features: np.ndarray) -> None:
    """Sets a model's projection to the principal directions of images' features.

    Norms between trunk and projection get the features' statistics. Features around their mean are
    mapped by an orthogonal projection, so that cosines of embeddings start as those of features.

    Args:
      model: built by `build_embedding_model`; its weights are set in place.
      features: float32 [n, features] from its `trunk_model`, of at least one image. Dimensions
        beyond the number of features become zero.

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
    """Returns float64 [features, count]: orthogonal, the longest first, zeros beyond features."""
    # Not PCA of scikit-learn, which has no more components than images: a dimension that is zero
    # for all of them has no gradient, and would stay so. Rising eigenvalues: the last are longest.
    longest = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
    # Signs are any, and processors differ: the largest number of a direction is positive.
    peaks = longest[np.abs(longest).argmax(axis=0), np.arange(longest.shape[1])]
    signed = longest * np.where(peaks < 0, -1.0, 1.0)
    return np.pad(signed, ((0, 0), (0, count - signed.shape[1])))
