"""Settings that the configurations of all trainings have in common."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.data.config import AugmentConfig
from apparel_embed.models.config import PRECISIONS


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """How steps are computed.

    Attributes:
      precision: number type of the backbone in training, one of `PRECISIONS`; weights and losses
        are always float32. With float16, the loss is scaled up so that small gradients do not
        vanish; steps whose gradients overflow are skipped, and the scale is halved.
      profile_steps: the first step to profile, counted from 0, and the step after the last one;
        None for no profile.
      deterministic: whether TensorFlow uses only operations that give the same bits every time,
        some of which are much slower on a GPU; None to do so only if all devices are CPUs.
    """

    precision: str = setting(
        "float32",
        "number type of the backbone's computations during training; weights, embeddings and "
        "losses are always float32",
        choices=PRECISIONS,
    )
    jit_compile: bool = setting(
        False,
        "compile training steps with XLA, which takes up to minutes at the start; one replica only",
        rare=True,
    )
    sync_batch_norm: bool = setting(
        True,
        "with several replicas, use the whole batch's statistics in batch norm, as on one device; "
        "otherwise those of each replica's part, which is faster but gives other results",
        rare=True,
    )
    profile_steps: tuple[int, int] | None = None
    deterministic: bool | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UserError(f"--precision={self.precision}: expected one of {known}")
        if self.profile_steps is not None:
            first, end = self.profile_steps
            if not 0 <= first < end:
                raise UserError(
                    f"--profile_steps={first}:{end}: expected two numbers, 0 or more, the second "
                    "greater than the first"
                )

    def check(self, replicas: int) -> None:
        """Raises a UserError if a number of replicas does not support these settings."""
        if self.jit_compile and replicas > 1:
            raise UserError(
                f"--jit_compile with {replicas} replicas: expected 1, as losses and batch norm "
                "gather the other replicas' parts of the batch, which XLA does not compile"
            )


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """Augmentation and caching of training images.

    Attributes:
      augment: strength of augmentation.
    """

    augment: AugmentConfig = AugmentConfig()
    cache_gib: float = setting(
        4.0,
        "memory for training images in GiB: decoded if they fit; else encoded, and decoded each "
        "time; else read and decoded each time. The rest is used for decoded validation images",
        0.0,
        rare=True,
    )
    views: int = setting(
        16,
        "augmented views of each image that pass through a frozen backbone, once for all "
        "trainings; 0 to augment in every step",
        0,
        1024,
        flag="frozen_views",
        rare=True,
    )


_VALIDATIONS = 10


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How often the loop validates, logs and saves, in steps."""

    validate_every: int = setting(
        0,
        "steps between validations; the weights of the best one are kept; 0 for ten validations "
        "per training",
        0,
    )
    checkpoint_every: int = setting(
        100, "steps between checkpoints from which an interrupted training resumes", 1, rare=True
    )
    log_every: int = setting(
        10,
        "steps between TensorBoard's scalars and histograms, which take a forward pass each time",
        1,
        rare=True,
    )
    keep_checkpoints: int = setting(
        2,
        "number of newest checkpoints that a training keeps until it ends, in addition to the one "
        "with the best weights",
        1,
        rare=True,
    )
    patience: int = setting(
        0,
        "validations without improvement after which a training ends; 0 to never end early",
        0,
        rare=True,
    )

    def validation_interval(self, steps: int) -> int:
        """Returns the steps between validations of a training with this number of steps."""
        return self.validate_every or max(1, steps // _VALIDATIONS)


OPTIMIZERS = ("adamw", "sgd")


FEW_IMAGES = 5000
"""With fewer training images, a backbone pretrained on other images is better frozen: it would
overfit. The number is a guess; only trainings with some hundred images were measured."""


LEARNING_RATE_SCALES: dict[str, Callable[[int], float]] = {
    "none": lambda replicas: 1.0,
    "linear": float,
    "sqrt": math.sqrt,
}
"""Functions from the number of replicas to the factor of the learning rate, by name."""


@dataclasses.dataclass(frozen=True)
class OptimizationConfig:
    """The optimiser and its schedule.

    Attributes:
      steps: total number of steps.
      optimizer: "adamw" or "sgd" (Nesterov momentum 0.9).
      learning_rate: peak learning rate on one replica.
      train_backbone: whether steps after `frozen_steps` train the backbone; None to do so with at
        least `FEW_IMAGES` training images, see `settled`. The batch norms of a frozen backbone use
        and keep their initial statistics.
      scale_learning_rate: how the learning rate grows with the number of replicas, one of
        `LEARNING_RATE_SCALES`. The batch is the same on any number of replicas, and so is the
        learning rate that suits it.
    """

    steps: int
    optimizer: str = setting("adamw", "optimiser", choices=OPTIMIZERS, rare=True)
    learning_rate: float = setting(1e-3, "peak learning rate", 0.0, 10.0)
    weight_decay: float = setting(
        1e-4, "decoupled weight decay, relative to the learning rate", 0.0, 1.0, rare=True
    )
    warmup_fraction: float = setting(
        0.1,
        "fraction of the steps during which the learning rate rises from 0; it then falls to 0 "
        "along a cosine",
        0.0,
        1.0,
        rare=True,
    )
    frozen_steps: int = setting(0, "number of first steps with a frozen backbone", 0, rare=True)
    train_backbone: bool | None = True
    seed: int = seed_setting("initial weights, batches and augmentation")
    scale_learning_rate: str = setting(
        "none",
        "how learning rates grow with the number of replicas: not at all (the batch is divided "
        "between them and does not grow), linearly, or with the square root",
        choices=LEARNING_RATE_SCALES,
        rare=True,
    )

    def settled(self, images: int) -> OptimizationConfig:
        """Returns the configuration with `train_backbone` resolved.

        Args:
          images: number of training images in the dataset.
        """
        if self.train_backbone is not None:
            return self
        return dataclasses.replace(self, train_backbone=images >= FEW_IMAGES)

    def is_frozen(self, step: int) -> bool:
        """Returns whether the backbone is frozen in a step, counted from 0."""
        return not self.train_backbone or step < self.frozen_steps


STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")
