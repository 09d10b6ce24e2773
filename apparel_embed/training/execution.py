"""How the steps of a training are computed: precision, randomness, and the step itself."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from apparel_embed.losses.keras import WholeBatchLoss

# Folded into the seed, to share no random numbers with batches and augmentation.
_DROPOUT = 11


def reset_and_seed(seed: int, deterministic: bool | None = None) -> None:
    """Clears earlier models and seeds everything, so that a training depends only on its seed.

    Determinism, see `ExecutionConfig`, stays enabled for the rest of the process.
    """
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    if deterministic is None:
        # Listing logical devices would start TensorFlow before the processes have connected.
        kinds = {device.device_type for device in tf.config.list_physical_devices()}
        deterministic = kinds == {"CPU"}
    if deterministic:
        tf.config.experimental.enable_op_determinism()


class StepRandomness:
    """Gives all dropout layers of a model random numbers that depend only on seed and step.

    Keras draws them from generators whose state lives in the running graph. A resumed training
    would therefore drop other values than an uninterrupted one. N replicas with B / N images each
    drop the same values as one device with B images.

    Args:
      model: the model whose dropout and stochastic-depth layers will draw from this object.
      seed: any integer.
    """

    def __init__(self, model: tf.keras.Model, seed: int) -> None:
        self._seed = seed
        self._step: tf.Tensor | None = None
        random_layer = tf.keras.__internal__.layers.BaseRandomLayer
        layers = [layer for layer in model.submodules if isinstance(layer, random_layer)]
        for index, layer in enumerate(layers):
            # Layers of this kind draw random numbers only from this attribute, only for dropout.
            layer._random_generator = types.SimpleNamespace(
                dropout=functools.partial(self._dropout, index)
            )

    def start(self, step: tf.Tensor) -> None:
        """Sets the step (int64 scalar); call it while a replica's graph is traced."""
        self._step = step

    def uniform(self, shape: tf.Tensor, layer: int) -> tf.Tensor:
        """Returns the replica's part of a layer's random numbers, float32, uniform in [0, 1).

        Args:
          shape: int32 [rank], shape of the replica's part; the first dimension counts its images.
          layer: index of the layer.
        """
        seed = tf.constant([self._seed, _DROPOUT], tf.int64)
        for part in (layer, self._step):
            seed = tf.random.experimental.stateless_fold_in(seed, part)
        replica = tf.distribute.get_replica_context()
        count = shape[0]
        whole = tf.concat([[count * replica.num_replicas_in_sync], shape[1:]], axis=0)
        first = replica.replica_id_in_sync_group * count
        return tf.random.stateless_uniform(whole, seed)[first : first + count]

    def _dropout(
        self, layer: int, inputs: tf.Tensor, rate: float, noise_shape: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Zeroes values with probability `rate` and scales the others up, as Keras' dropout does.

        Values along dimensions of size 1 in `noise_shape`, int32 [rank], are dropped together.
        """
        shape = tf.shape(inputs) if noise_shape is None else noise_shape
        kept = self.uniform(shape, layer) >= rate
        return tf.where(kept, inputs / (1.0 - rate), tf.zeros([], inputs.dtype))


def make_step(
    *,
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.Optimizer,
    loss: WholeBatchLoss,
    augment: Callable[[Any], tf.Tensor],
    randomness: StepRandomness,
    strategy: tf.distribute.Strategy,
    jit_compile: bool,
) -> Callable[[tuple, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Creates a function that does one step, forward, backward and update, on all replicas.

    Args:
      model: the model to train; only variables that are trainable now are trained.
      optimizer: optimiser with all slots; a `LossScaleOptimizer` to scale losses.
      loss: maps the replica's (labels or targets, embeddings) to the whole batch's scalar.
      augment: maps the batch's inputs to images float32 [batch, size, size, 3].
      randomness: random numbers of the model's dropout.
      strategy: the strategy that model and optimiser were created in.
      jit_compile: whether XLA compiles the step.

    Returns:
      A function of a batch (inputs, labels or targets), the step's number int64, counted from 1,
      and int32 1 if this process was requested to stop, else 0. It returns the loss, and int32 [3]:
      the number of images, of replicas on which loss or gradients were not finite, and of replicas
      whose process was requested to stop.
    """

    def learn(images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        randomness.start(step)
        return _learn(model, optimizer, loss, images, labels)

    if jit_compile:
        # Excludes augmentation, parts of which XLA does not support.
        learn = tf.function(learn, jit_compile=True)

    def replica_step(inputs: Any, labels: tf.Tensor, step: tf.Tensor, stop: tf.Tensor) -> tuple:
        images = augment(inputs)
        value, failed = learn(images, labels, step)
        return value, tf.stack([tf.shape(images)[0], failed, stop])

    @tf.function
    def train_step(batch: tuple, step: tf.Tensor, stop: tf.Tensor) -> tuple:
        value, counts = strategy.run(replica_step, args=(*batch, step, stop))
        return (
            strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None),
            strategy.reduce(tf.distribute.ReduceOp.SUM, counts, axis=None),
        )

    return train_step


def _learn(
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.Optimizer,
    loss: WholeBatchLoss,
    images: tf.Tensor,
    labels: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Updates the weights; returns the loss, and int32 1 if loss or gradient was not finite."""
    scales = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
        scaled = optimizer.get_scaled_loss(value) if scales else value
    gradients = tape.gradient(scaled, variables)
    # Read before the optimiser changes it: overflow is excused only if the loss was scaled up.
    excused = optimizer.loss_scale > 1.0 if scales else False
    if scales:
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables))
    # The norm is finite if all gradients are, and takes one pass over each.
    norm = tf.add_n([tf.nn.l2_loss(one) for one in gradients if one is not None])
    fine = tf.math.is_finite(value) & (tf.math.is_finite(norm) | excused)
    return value, tf.cast(tf.logical_not(fine), tf.int32)
