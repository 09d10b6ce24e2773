"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.training.settings import LEARNING_RATE_SCALES, OptimizationConfig


def make_optimizer(
    config: OptimizationConfig, *, replicas: int = 1, scale_loss: bool = False
) -> tf.keras.optimizers.Optimizer:
    """Returns the optimiser with linear warm-up and cosine decay to 0.

    Args:
      config: configuration of the optimiser.
      replicas: number of replicas.
      scale_loss: whether to wrap the optimiser in a `LossScaleOptimizer`, as float16 requires.
    """
    warmup = round(config.steps * config.warmup_fraction)
    peak = config.learning_rate * LEARNING_RATE_SCALES[config.scale_learning_rate](replicas)
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else peak,
        decay_steps=max(config.steps - warmup, 1),
        warmup_target=peak if warmup else None,
        warmup_steps=warmup,
    )
    if config.optimizer == "sgd":
        optimizer = tf.keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
        )
    else:
        optimizer = tf.keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "exponent"])
    return tf.keras.mixed_precision.LossScaleOptimizer(optimizer) if scale_loss else optimizer
