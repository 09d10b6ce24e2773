"""Training on top of a frozen backbone, whose features are computed once.

Almost all computation of a step is the backbone's. While the backbone is frozen, the features of an
augmented view do not change. Some views of every image therefore pass through it once, and each
step of each training draws among them.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from apparel_embed.common.progress import progress_bar
from apparel_embed.data.augment import Augmenter
from apparel_embed.data.config import AugmentConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.image_store import decoded_batches
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import build_embedding_model, trunk_model

# Changing it changes the views: the batch's number seeds the augmentation.
_BATCH = 64
# Part of the seed, to share no random numbers with batches and augmentation.
_VIEWS = 13


def compute_views(
    dataset: PreparedDataset,
    records: np.ndarray,
    config: ModelConfig,
    init_weights: str,
    *,
    augment: AugmentConfig,
    views: int,
) -> np.ndarray:
    """Returns the features of augmented views of images, from a backbone's initial weights.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      config: configuration of the model whose trunk computes the features.
      init_weights: as in `load_initial_weights`, and not "none".
      augment: augmentation of the views.
      views: number of views per image, 1 or more. Trainings with any seed share them.

    Returns:
      float32 [n, views, features].
    """
    tf.keras.backend.clear_session()
    trunk = trunk_model(build_embedding_model(config, init_weights))
    augmenter = Augmenter(augment)

    @tf.function
    def features_of(images: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        drawn = tf.random.experimental.stateless_fold_in(tf.constant([0, _VIEWS]), number)
        return trunk(augmenter(images, drawn), training=False)

    found = np.zeros([len(records), views, trunk.output_shape[-1]], np.float32)
    batches = decoded_batches(dataset, records, config.image_size, _BATCH)
    bar = progress_bar(total=len(records) * views, what="views", unit="images")
    for number, images in enumerate(batches):
        part = found[number * _BATCH : number * _BATCH + len(images)]
        for view in range(views):
            part[:, view] = features_of(images, tf.constant(number * views + view)).numpy()
            bar.update(len(images))
    bar.close()
    return found


class FrozenViews:
    """Views of a training's images, which replace an `ImageStore`.

    Args:
      features: float32 [n, views, features], for each position of the store.
    """

    def __init__(self, features: np.ndarray) -> None:
        self._views = features.shape[1]
        # A variable, because a tensor would be copied into each graph that uses it.
        self._table = tf.Variable(features.reshape(-1, features.shape[2]), trainable=False)

    def read(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns positions int64 [batch] unchanged: the step looks up the features."""
        return positions

    def decode(self, kept: tf.Tensor) -> tf.Tensor:
        """Returns `kept` unchanged."""
        return kept

    def augment(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Maps positions [batch] and draws [batch, ...] to the features of a drawn view each."""
        positions, draws = inputs
        view = tf.cast(draws[:, 0] * self._views, positions.dtype)
        return tf.gather(self._table, positions * self._views + view)
