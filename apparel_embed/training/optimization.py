"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

from apparel_embed.common.settings import seed_setting, setting

OPTIMIZERS = ("adamw", "sgd")
FEW_PICTURES = 5000
"""Training images below which a backbone that knows other images is better left as it is: it
learns the few by heart. Our choice; measured with some hundred images only."""
LEARNING_RATE_SCALES: dict[str, Callable[[int], float]] = {
    "none": lambda replicas: 1.0,
    "linear": float,
    "sqrt": math.sqrt,
}
"""From the number of replicas to the factor of the learning rate, by name."""


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """How weights are moved.

    Attributes:
      steps: number of steps in all.
      optimizer: "adamw" or "sgd" (Nesterov momentum 0.9).
      learning_rate: at its peak, on one replica.
      train_backbone: whether later steps train the backbone; None: whether there are at least
        `FEW_PICTURES` training images, see `settled`. Where it is not trained, its batch norms use
        their initial statistics, and leave them as they are.
      scale_learning_rate: how the learning rate grows with the number of replicas, one of
        `LEARNING_RATE_SCALES`. The batch is the same on any number of replicas, and so is the
        learning rate that fits it.
    """

    steps: int
    optimizer: str = setting("adamw", "optimiser", choices=OPTIMIZERS, seldom=True)
    learning_rate: float = setting(1e-3, "learning rate at its peak", 0.0, 10.0)
    weight_decay: float = setting(
        1e-4, "decoupled weight decay, relative to the learning rate", 0.0, 1.0, seldom=True
    )
    warmup_fraction: float = setting(
        0.1,
        "part of the steps during which the learning rate rises from 0; it then falls to 0 along a "
        "cosine",
        0.0,
        1.0,
        seldom=True,
    )
    frozen_steps: int = setting(0, "first steps that train all but the backbone", 0, seldom=True)
    train_backbone: bool | None = True
    seed: int = seed_setting("initial weights, batches and augmentation")
    scale_learning_rate: str = setting(
        "none",
        "how learning rates grow with the number of replicas: not (the batch does not grow either, "
        "it is divided between them), with it, or with its square root",
        choices=LEARNING_RATE_SCALES,
        seldom=True,
    )

    def settled(self, pictures: int) -> OptimizationConfig:
        """Returns the same with `train_backbone` decided.

        Args:
          pictures: training images of the dataset.
        """
        if self.train_backbone is not None:
            return self
        return dataclasses.replace(self, train_backbone=pictures >= FEW_PICTURES)

    def is_frozen(self, step: int) -> bool:
        """Returns whether the backbone stays as it is in a step, counted from 0."""
        return not self.train_backbone or step < self.frozen_steps


def make_optimizer(
    config: OptimizationConfig, *, replicas: int = 1, scale_loss: bool = False
) -> tf.keras.optimizers.Optimizer:
    """Returns the optimiser with linear warm-up and cosine decay to 0.

    Args:
      config: how weights are moved.
      replicas: number of replicas that train together.
      scale_loss: whether to wrap it into a `LossScaleOptimizer`, as float16 needs.
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
