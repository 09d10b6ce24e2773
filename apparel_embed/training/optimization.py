"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

OPTIMIZERS = ("adamw", "sgd")


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """How weights are moved.

    Attributes:
      steps: number of steps in all.
      optimizer: "adamw" or "sgd" (Nesterov momentum 0.9).
      learning_rate: at its peak.
      weight_decay: decoupled, relative to the learning rate; not for biases and norms.
      warmup_fraction: part of the steps during which the learning rate rises from 0, 0..1.
      frozen_steps: first steps that train all but the backbone.
      seed: of initial weights, batches and augmentation.
    """

    steps: int
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup_fraction: float = 0.1
    frozen_steps: int = 0
    seed: int = 0


def make_optimizer(config: OptimizationConfig) -> tf.keras.optimizers.Optimizer:
    """Returns the optimiser with linear warm-up and cosine decay to 0."""
    warmup = round(config.steps * config.warmup_fraction)
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(config.steps - warmup, 1),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    if config.optimizer == "sgd":
        optimizer = tf.keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
        )
    else:
        optimizer = tf.keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "exponent"])
    return optimizer
