"""Dropout and stochastic depth as a pure function of seed and step.

Keras draws them from generators whose state lives in the running graph, so that a resumed training
would drop other values than one never interrupted.
"""

from __future__ import annotations

import tensorflow as tf

# Folded into the seed, so that no random numbers are shared with batches and augmentation.
_DROPOUT = 11


class StepRandomness:
    """Gives all dropout layers of a model random numbers that depend on seed and step alone.

    N replicas with a batch of B / N each drop what one device with a batch of B drops.

    Args:
      model: whose layers are to draw from here from now on.
      seed: any integer.
    """

    def __init__(self, model: tf.keras.Model, seed: int) -> None:
        self._seed = seed
        self._step: tf.Tensor | None = None
        random_layer = tf.keras.__internal__.layers.BaseRandomLayer
        layers = [layer for layer in model.submodules if isinstance(layer, random_layer)]
        for index, layer in enumerate(layers):
            # The attribute that a layer of this kind asks for everything random.
            layer._random_generator = _LayerRandomness(self, index)

    def start(self, step: tf.Tensor) -> None:
        """Sets, while a replica's graph is traced, the step (int64 scalar) that it computes."""
        self._step = step

    def uniform(self, shape: tf.Tensor, layer: int) -> tf.Tensor:
        """Returns the replica's part of a layer's random numbers.

        Args:
          shape: int32 [rank], of the replica's part; the first dimension counts its pictures.
          layer: number of the layer.

        Returns:
          float32, uniform in [0, 1).
        """
        seed = tf.constant([self._seed, _DROPOUT], tf.int64)
        for part in (layer, self._step):
            seed = tf.random.experimental.stateless_fold_in(seed, part)
        replica = tf.distribute.get_replica_context()
        count = shape[0]
        whole = tf.concat([[count * replica.num_replicas_in_sync], shape[1:]], axis=0)
        first = replica.replica_id_in_sync_group * count
        return tf.random.stateless_uniform(whole, seed)[first : first + count]


class _LayerRandomness:
    """What a Keras layer asks for random numbers, as far as dropout layers ask."""

    def __init__(self, randomness: StepRandomness, index: int) -> None:
        self._randomness = randomness
        self._index = index

    def dropout(
        self, inputs: tf.Tensor, rate: float, noise_shape: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Zeroes values with probability `rate` and scales the others up, as Keras' dropout does.

        Args:
          inputs: [batch, ...].
          rate: 0 to below 1.
          noise_shape: int32 [rank]; values along a dimension of 1 are dropped together. None: each
            is dropped by its own.
        """
        shape = tf.shape(inputs) if noise_shape is None else noise_shape
        noise = self._randomness.uniform(shape, self._index)
        return tf.where(noise >= rate, inputs / (1.0 - rate), tf.zeros([], inputs.dtype))
