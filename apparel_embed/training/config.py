"""The configurations of the trainings of specialists, student and detector."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Union

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.config import VERTICAL_WEIGHTS, AugmentConfig
from apparel_embed.losses.config import COSINE, REGRESSION_LOSSES, SMOOTH_L1_DELTA, LossConfig
from apparel_embed.models.config import DetectorConfig, ModelConfig
from apparel_embed.training.settings import (
    ExecutionConfig,
    InputConfig,
    LoopConfig,
    OptimizationConfig,
)


@dataclasses.dataclass(frozen=True)
class SpecialistConfig:
    """The training of a triplet model.

    Attributes:
      model: the model to train.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      init_from: directory of an earlier run, from one of whose models a stage starts instead, or
        None.
      loss: loss over triplets or pairs of a batch.
      optimization: the optimiser and number of steps.
      input: augmentation and caching of training images.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.
    """

    model: ModelConfig = ModelConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=225, learning_rate=2e-3)
    init_weights: str = "none"
    init_from: Path | None = None
    items_per_batch: int = setting(16, "P, items per batch of triplets", 2)
    images_per_item: int = setting(4, "K, images per item in a batch of triplets", 2)
    min_images: int = setting(
        2,
        "minimum number of training images of an item to be used for triplets; with 1, the "
        "positives of an item with one image are augmentations of that image",
        1,
    )
    loss: LossConfig = LossConfig()
    input: InputConfig = InputConfig()
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()

    def for_verticals(self, count: int) -> SpecialistConfig:
        """Returns the training of one model for all `count` verticals, with their total steps."""
        return self.for_steps(self.optimization.steps * count, verticals=count)

    def for_steps(self, steps: int, *, verticals: int) -> SpecialistConfig:
        """Returns the training of one model for some verticals, with another number of steps."""
        return dataclasses.replace(
            self,
            optimization=dataclasses.replace(
                self.optimization,
                steps=steps,
                frozen_steps=self.optimization.frozen_steps * verticals,
            ),
            loop=dataclasses.replace(
                self.loop, validate_every=self.loop.validate_every * verticals
            ),
        )


STUDENT_EPOCHS = 80


LEAST_STUDENT_STEPS = 600


MOST_STUDENT_STEPS = 50_000


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """The training of the student.

    Attributes:
      model: the model to train; its embedding has the length of the targets.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      init_from: directory of an earlier run, from whose student a stage starts instead, or None.
      loss: the distance to the targets, one of `REGRESSION_LOSSES`.
      standardise: whether that distance standardises the dimensions of the targets, see
        `standardising_scale`.
      optimization: the optimiser and number of steps; 0 steps to derive them from the number of
        images, see `settled`.
      input: augmentation and caching of training images.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.

    Raises:
      UserError: if `standardise` is set but the loss does not support it.
    """

    model: ModelConfig = ModelConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=0, learning_rate=2e-3)
    init_weights: str = "none"
    init_from: Path | None = None
    batch_size: int = setting(64, "images per batch of the student", 1, flag="student_batch_size")
    vertical_weights: str = setting(
        "images",
        "how often the student sees a vertical: in proportion to its number of images, equally "
        "often, or in proportion to the square root of its number of images",
        choices=VERTICAL_WEIGHTS,
        flag="student_vertical_weights",
        rare=True,
    )
    loss: str = setting(
        "mse",
        "the student's distance to its targets: mse, squared error; cosine, 1 - cosine; smooth_l1, "
        f"squared error up to a difference of {SMOOTH_L1_DELTA:g} in a dimension and absolute "
        "error beyond",
        choices=REGRESSION_LOSSES,
        flag="student_loss",
        rare=True,
    )
    standardise: bool = setting(
        False,
        "scale that distance as if targets had the same standard deviation in all dimensions; only "
        "with mse and smooth_l1",
        flag="standardise_targets",
        rare=True,
    )
    input: InputConfig = InputConfig()
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        # Checked here to fail before specialists are trained.
        if self.standardise and self.loss == COSINE:
            raise UserError(
                f"--standardise_targets with --student_loss={COSINE}: expected mse or "
                "smooth_l1, as scaling dimensions changes angles"
            )

    def settled(self, learnt: int, images: int) -> StudentConfig:
        """Returns the configuration with everything resolved that depends on numbers of images.

        A student gains from many epochs, as augmentation shows it new views.

        Args:
          learnt: number of images that the student learns from.
          images: number of training images in the dataset.
        """
        optimization = self.optimization.settled(images)
        if not optimization.steps:
            steps = math.ceil(STUDENT_EPOCHS * learnt / self.batch_size)
            steps = min(max(steps, LEAST_STUDENT_STEPS), MOST_STUDENT_STEPS)
            optimization = dataclasses.replace(optimization, steps=steps)
        return dataclasses.replace(self, optimization=optimization)

    def for_verticals(self, count: int, total: int) -> StudentConfig:
        """Returns the training of a student of some verticals, with their share of the steps.

        The backbone is trained for at least one step if this configuration trains it, and for none
        if it does not.

        Args:
          count: number of verticals of the student, 1 or more.
          total: number of verticals that this configuration is for.
        """
        whole = self.optimization
        if not whole.steps:
            # `settled` derives them from the number of images.
            return self
        steps = max(1, round(whole.steps * count / total))
        frozen = round(whole.frozen_steps * count / total)
        frozen = min(frozen, steps - 1) if whole.frozen_steps < whole.steps else max(frozen, steps)
        validate_every = math.ceil(self.loop.validate_every * count / total)
        return dataclasses.replace(
            self,
            optimization=dataclasses.replace(whole, steps=steps, frozen_steps=frozen),
            loop=dataclasses.replace(self.loop, validate_every=validate_every),
        )


@dataclasses.dataclass(frozen=True)
class DetectorTraining:
    """The training of the detector.

    Attributes:
      model: the model to train; its verticals are those of the photographs' garments.
      optimization: the optimiser and number of steps.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      input: augmentation and caching of photographs, which cannot be rotated.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.
    """

    model: DetectorConfig = DetectorConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=3000, learning_rate=2e-3)
    init_weights: str = "none"
    batch_size: int = setting(
        8, "photographs per batch of the detector", 1, flag="detector_batch_size", rare=True
    )
    input: InputConfig = InputConfig(
        AugmentConfig(zoom=0.2, translation=0.1, brightness=0.1, contrast=0.1, saturation=0.1)
    )
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()


TrainingConfig = Union[SpecialistConfig, StudentConfig, DetectorTraining]
"""The training of a model of any kind."""
