"""Embeddings averaged over views of a picture: the picture itself and augmented ones."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from apparel_embed.data.augment import AugmentConfig, Augmenter
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches

MOST_VIEWS = 16
_BATCH = 64
# Folded into the seed, so that views are not those that training sees.
_VIEWS = 8


def embed_views(
    model: tf.keras.Model,
    dataset: PreparedDataset,
    records: np.ndarray,
    *,
    count: int,
    augment: AugmentConfig,
    seed: int,
) -> np.ndarray:
    """Embeds pictures by the mean over some views of each, brought back to unit length.

    Args:
      model: from float32 [batch, size, size, 3] to [batch, dim], of unit length.
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      count: number of views, 1 to `MOST_VIEWS`; the first is the picture itself.
      augment: how the other views are made.
      seed: of augmentation; the same records and seed give the same embeddings.

    Returns:
      float32 [n, dim]. A picture whose views cancel each other out has its own embedding.

    Raises:
      UserError: if the number of views is out of range.
    """
    if not 1 <= count <= MOST_VIEWS:
        raise UserError(f"--target_views={count}: allowed are 1 to {MOST_VIEWS}")
    embedder = Embedder(model)
    itself = embedder.records(dataset, records)
    if count == 1:
        return itself
    augmenter = Augmenter(augment)
    total = itself.astype(np.float64)
    for view in range(1, count):
        view_seed = tf.random.experimental.stateless_fold_in(
            tf.constant([seed, _VIEWS], tf.int64), view
        )
        pictures = decoded_batches(dataset, records, model.input_shape[1], _BATCH)
        total += embedder(_augmented(pictures, augmenter, view_seed))
    return mean_direction(total, itself)


def mean_direction(total: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Returns sums of unit vectors at unit length.

    Args:
      total: float64 [n, dim].
      otherwise: float32 [n, dim], what to take where a sum has no direction.

    Returns:
      float32 [n, dim].
    """
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    # Made of the rounding of float32; what is not a number stays so, to be told of.
    nothing = lengths < 1e-6
    return np.where(nothing, otherwise, total / np.where(nothing, 1, lengths)).astype(np.float32)


def _augmented(pictures: tf.data.Dataset, augmenter: Augmenter, seed: tf.Tensor) -> tf.data.Dataset:
    """Augments batches of uint8 [batch, size, size, 3], each by a seed of its own."""

    def one(number: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        own = tf.random.experimental.stateless_fold_in(seed, number)
        return tf.cast(tf.round(augmenter(tf.cast(images, tf.float32), own)), tf.uint8)

    return pictures.enumerate().map(one, num_parallel_calls=tf.data.AUTOTUNE)
