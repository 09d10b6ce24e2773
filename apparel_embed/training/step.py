"""One step of a training: forward, backward and update, on every replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.training.dropout import StepRandomness
from apparel_embed.training.execution import ExecutionConfig


def make_step(
    *,
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.Optimizer,
    loss: WholeBatchLoss,
    augment: Callable[[Any], tf.Tensor],
    randomness: StepRandomness,
    strategy: tf.distribute.Strategy,
    execution: ExecutionConfig,
) -> Callable[[tuple, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Makes a function that does a step on all replicas.

    Args:
      model: to train, those of its variables that can be trained now.
      optimizer: with all its slots; a `LossScaleOptimizer` if losses are to be scaled.
      loss: from the replica's (labels or targets, embeddings) to the whole batch's scalar.
      augment: from what batches have beside labels to images float32 [batch, size, size, 3].
      randomness: of the model's dropout.
      strategy: that all of them were made for.
      execution: how to compute.

    Returns:
      A function of a batch (inputs, labels or targets) and the step's number int64, counted from 1.
      It returns the loss, the number of pictures, and the number of replicas on which loss or
      gradients were no finite numbers.
    """

    def learn(images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        randomness.start(step)
        return _learn(model, optimizer, loss, images, labels)

    if execution.jit_compile:
        # Without augmentation, which is not for XLA in all its parts.
        learn = tf.function(learn, jit_compile=True)

    def replica_step(inputs: Any, labels: tf.Tensor, step: tf.Tensor) -> tuple:
        images = augment(inputs)
        value, failed = learn(images, labels, step)
        return value, tf.shape(images)[0], failed

    @tf.function
    def train_step(batch: tuple, step: tf.Tensor) -> tuple:
        value, size, failed = strategy.run(replica_step, args=(*batch, step))
        total = tf.distribute.ReduceOp.SUM
        return (
            strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None),
            strategy.reduce(total, size, axis=None),
            strategy.reduce(total, failed, axis=None),
        )

    return train_step


def _learn(
    model: tf.keras.Model,
    optimizer: tf.keras.optimizers.Optimizer,
    loss: WholeBatchLoss,
    images: tf.Tensor,
    labels: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Updates the weights; returns the loss, and int32 whether something was not finite."""
    scales = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
        scaled = optimizer.get_scaled_loss(value) if scales else value
    gradients = tape.gradient(scaled, variables)
    # Looked at before it changes: a gradient that overflows without being scaled up has failed.
    excused = optimizer.loss_scale > 1.0 if scales else False
    if scales:
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables))
    # One number that is finite if all are, from one pass over each gradient.
    norm = tf.add_n([tf.nn.l2_loss(one) for one in gradients if one is not None])
    fine = tf.math.is_finite(value) & (tf.math.is_finite(norm) | excused)
    return value, tf.cast(tf.logical_not(fine), tf.int32)
