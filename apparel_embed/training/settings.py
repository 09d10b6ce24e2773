"""What the configurations of all trainings have in common."""

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
      precision: number format of the backbone in training, one of `PRECISIONS`; weights and losses
        are float32 in all. With float16 the loss is scaled up before gradients are taken, so that
        small ones do not vanish; a step whose gradients overflow is left out, and the scale halved.
      profile_steps: the first step to profile, counted from 0, and the one to end before; None for
        no profile.
      deterministic: whether TensorFlow may only use operations that give the same bits every time,
        which on a GPU makes some of them much slower; None for yes where there are only CPUs.
    """

    precision: str = setting(
        "float32",
        "number type of the backbone's computations during training; weights, embeddings and "
        "losses are always float32",
        choices=PRECISIONS,
    )
    jit_compile: bool = setting(
        False,
        "compile training steps by XLA, which takes up to minutes at the start; one replica",
        seldom=True,
    )
    sync_batch_norm: bool = setting(
        True,
        "several replicas: batch norm by the statistics of the whole batch, as on one device; "
        "without, by those of each replica's part, which is faster and gives other results",
        seldom=True,
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
                    f"--profile_steps={first}:{end}: expected two numbers of 0 and above, the "
                    "second greater than the first"
                )

    def check(self, replicas: int) -> None:
        """Raises a UserError if steps cannot be computed so on a number of replicas."""
        if self.jit_compile and replicas > 1:
            raise UserError(
                f"--jit_compile with {replicas} replicas: expected 1, as losses and batch norm ask "
                "the other replicas for their part of the batch, which XLA does not compile"
            )


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How training input is made.

    Attributes:
      augment: strength of augmentation.
    """

    augment: AugmentConfig = AugmentConfig()
    cache_gib: float = setting(
        4.0,
        "memory for training images in GiB: decoded ones, or where these do not fit encoded "
        "ones, which are decoded each time; what fits neither way is read each time, too; what "
        "they leave is for decoded images to validate on",
        0.0,
        seldom=True,
    )
    views: int = setting(
        16,
        "augmented views of each image that are put through a backbone that is not trained, once "
        "for all trainings; 0 to augment in every step",
        0,
        1024,
        flag="frozen_views",
        seldom=True,
    )


_VALIDATIONS = 10


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How often the loop looks up from its work, in steps."""

    validate_every: int = setting(
        0,
        "steps between validations; the weights of the best one are kept; 0 for ten validations "
        "per training",
        0,
    )
    checkpoint_every: int = setting(
        100, "steps between checkpoints from which an interrupted training resumes", 1, seldom=True
    )
    log_every: int = setting(
        10,
        "steps between TensorBoard's numbers and histograms, each a forward pass more",
        1,
        seldom=True,
    )
    keep_checkpoints: int = setting(
        2,
        "newest checkpoints that a training keeps until it is finished, beside that of the best "
        "weights",
        1,
        seldom=True,
    )
    patience: int = setting(
        0,
        "validations without a better one after which a training ends; 0 for never",
        0,
        seldom=True,
    )

    def validation_interval(self, steps: int) -> int:
        """Returns the steps between validations of a training of so many steps."""
        return self.validate_every or max(1, steps // _VALIDATIONS)


OPTIMIZERS = ("adamw", "sgd")


FEW_IMAGES = 5000
"""Training images below which a backbone that knows other images is better left as it is: it
overfits the few. Our choice; measured with some hundred images only."""


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
        `FEW_IMAGES` training images, see `settled`. Where it is not trained, its batch norms use
        their initial statistics, and leave them as they are.
      scale_learning_rate: how the learning rate grows with the number of replicas, one of
        `LEARNING_RATE_SCALES`. The batch is the same on any number of replicas, and so is the
        learning rate that fits it.
    """

    steps: int
    optimizer: str = setting("adamw", "optimiser", choices=OPTIMIZERS, seldom=True)
    learning_rate: float = setting(1e-3, "peak learning rate", 0.0, 10.0)
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

    def settled(self, images: int) -> OptimizationConfig:
        """Returns the same with `train_backbone` decided.

        Args:
          images: training images of the dataset.
        """
        if self.train_backbone is not None:
            return self
        return dataclasses.replace(self, train_backbone=images >= FEW_IMAGES)

    def is_frozen(self, step: int) -> bool:
        """Returns whether the backbone stays as it is in a step, counted from 0."""
        return not self.train_backbone or step < self.frozen_steps


STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu")
