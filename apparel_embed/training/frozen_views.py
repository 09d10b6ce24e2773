"""Training on top of a backbone that is not trained: what it makes of images, made once.

Nearly all arithmetic of a step is the backbone's. While that stays as it is, so do the features of
an augmented view: some views of every image are put through it once, and each step of each training
draws among them.
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

# Part of the result: images are augmented by the number of their batch.
_BATCH = 64
# Of the seed, so that no random numbers are shared with batches and augmentation.
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
    """Returns what a backbone with its initial weights makes of augmented views of images.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
      config: of the model whose trunk makes the features.
      init_weights: as in `load_initial_weights`, and not "none".
      augment: how views are made.
      views: of each image, 1 or more. They are the same for trainings of all seeds.

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
    """Views of a training's images, in the place of an `ImageStore`.

    Args:
      features: float32 [n, views, features], of each position of the store.
    """

    def __init__(self, features: np.ndarray) -> None:
        self._views = features.shape[1]
        # A variable and no tensor, which would become a part of each graph that uses it.
        self._table = tf.Variable(features.reshape(-1, features.shape[2]), trainable=False)

    def read(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns positions int64 [batch] as they are: features are looked up in the step."""
        return positions

    def decode(self, kept: tf.Tensor) -> tf.Tensor:
        """Returns what was read."""
        return kept

    def augment(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """From a batch's positions [batch] and draws [batch, ...] to features of a drawn view."""
        positions, draws = inputs
        view = tf.cast(draws[:, 0] * self._views, positions.dtype)
        return tf.gather(self._table, positions * self._views + view)
