"""What TensorBoard is told of a training beside loss, learning rate and validation.

A step computes what it would without: batches are looked at from outside, and rarely.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from apparel_embed.losses.keras import gather_replicas
from apparel_embed.training.measures import Measures


@dataclasses.dataclass(frozen=True)
class BatchSummaries:
    """What is told of a training's batches.

    Attributes:
      measure: from labels or targets [batch, ...], embeddings [batch, dim] and their lengths before
        they were scaled to 1 [batch] to what is logged of them.
      first_batch: returns a sheet of augmented pictures, uint8 [height, width, 3].
    """

    measure: Callable[[np.ndarray, np.ndarray, np.ndarray], Measures]
    first_batch: Callable[[], np.ndarray]


class Observer:
    """Looks at a training, and writes to the default summary writer what it sees.

    Batches are embedded as in use, without dropout and with the moving statistics of batch norm,
    by the weights that the step has left. That changes nothing of the model.

    Args:
      summaries: what to tell.
      unscaled: from what `augment` returns to embeddings before they are scaled to 1, and after,
        both [batch, dim].
      augment: from a batch's inputs to images float32 [batch, size, size, 3].
      strategy: that the model was made for.
    """

    def __init__(
        self,
        summaries: BatchSummaries,
        unscaled: tf.keras.Model,
        augment: Callable[[Any], tf.Tensor],
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._summaries = summaries
        self._strategy = strategy

        def of_replica(inputs: Any, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            vectors, embeddings = unscaled(augment(inputs), training=False)
            norms = tf.norm(vectors, axis=-1, keepdims=True)
            return gather_replicas(labels, tf.concat([embeddings, norms], axis=1))

        @tf.function
        def embed(batch: tuple) -> tuple:
            return strategy.run(of_replica, args=batch)

        self._embed = embed

    def begin(self, graph: tf.Graph) -> None:
        """Writes the graph of the model, and the pictures of the first batch.

        Args:
          graph: of the model, from uint8 images to embeddings.
        """
        tf.summary.graph(graph)
        tf.summary.image("first_batch", self._summaries.first_batch()[np.newaxis], 0)

    def look(self, batch: tuple, step: int) -> None:
        """Writes the measures of a batch.

        Args:
          batch: (inputs, labels or targets), as the step was given it.
          step: that it was the batch of, counted from 1.
        """
        # All replicas have the whole batch.
        labels, found = (
            self._strategy.experimental_local_results(one)[0].numpy() for one in self._embed(batch)
        )
        write_measures(self._summaries.measure(labels, found[:, :-1], found[:, -1]), step)


def write_measures(measures: Measures, step: int) -> None:
    """Writes measures to the default summary writer.

    Args:
      measures: of a batch. Of histograms finite values are shown, for of others there are none.
      step: counted from 1.
    """
    for name, value in measures.scalars.items():
        tf.summary.scalar(name, value, step)
    for name, values in measures.histograms.items():
        finite = values[np.isfinite(values)]
        if len(finite):
            tf.summary.histogram(name, finite, step)
