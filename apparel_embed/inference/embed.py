"""Embeds records of a dataset with a model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from apparel_embed.common.progress import SECONDS_UNSEEN, progress_bar
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.image_store import decoded_batches, on_device


class Embedder:
    """Embeds images with a model; its graph is traced only once.

    Args:
      model: maps float32 [batch, size, size, 3] to [batch, ...], usually embeddings [batch, dim].

    Examples:
      >>> from apparel_embed import EmbeddingModel, ModelConfig, load_prepared
      >>> embed = Embedder(EmbeddingModel(ModelConfig(image_size=32, embedding_dim=8)))
      >>> dataset = load_prepared("data/prepared")
      >>> embed.records(dataset, dataset.select(split="test")).shape
      (16, 8)
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self._image_size = model.input_shape[1]
        self._shape = model.output_shape[1:]
        signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)

        @tf.function(input_signature=[signature])
        def embed(images: tf.Tensor) -> tf.Tensor:
            return model(tf.cast(images, tf.float32), training=False)

        # Traced here once; otherwise TensorFlow warns about retracing with every new Embedder.
        self._embed = embed.get_concrete_function()

    @property
    def graph(self) -> tf.Graph:
        """The graph from uint8 [batch, size, size, 3] to embeddings."""
        return self._embed.graph

    def __call__(self, batches: Iterable[tf.Tensor]) -> np.ndarray:
        """Embeds batches of uint8 [batch, size, size, 3]: float32 [n, ...]."""
        parts = [self._embed(images).numpy() for images in batches]
        return np.concatenate([np.zeros([0, *self._shape], np.float32), *parts])

    def records(self, dataset: PreparedDataset, records: np.ndarray) -> np.ndarray:
        """Embeds records of a dataset.

        Args:
          dataset: a prepared dataset.
          records: int64 [n] record numbers, in any order.

        Returns:
          float32 [n, dim], in the order of `records`.

        Raises:
          UserError: if a shard is damaged; the message names file and record.
        """
        batches = decoded_batches(dataset, records, self._image_size)
        total, ahead = len(batches), on_device(batches)
        with progress_bar(
            ahead, total=total, what="embed", unit="batches", delay=SECONDS_UNSEEN
        ) as bar:
            return self(bar)
