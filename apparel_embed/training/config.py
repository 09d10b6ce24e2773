"""How specialists and the student are trained."""

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
    """How a triplet model is trained.

    Attributes:
      model: what to train.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      init_from: directory of an earlier run from one of whose models a stage starts instead, or
        None.
      loss: over triplets or pairs of a batch.
      optimization: the optimiser and number of steps.
      input: how training input is made.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.
    """

    model: ModelConfig = ModelConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=225, learning_rate=2e-3)
    init_weights: str = "none"
    init_from: Path | None = None
    items_per_batch: int = setting(16, "P, items in a batch of triplets", 2)
    images_per_item: int = setting(4, "K, images of each item in a batch of triplets", 2)
    min_images: int = setting(
        2,
        "items with fewer training images are left out of triplets; with 1, an item seen once "
        "counts, its positives being augmentations of one image",
        1,
    )
    loss: LossConfig = LossConfig()
    input: InputConfig = InputConfig()
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()

    def for_verticals(self, count: int) -> SpecialistConfig:
        """Returns the training of a model for so many verticals: all their specialists' steps."""
        return self.for_steps(self.optimization.steps * count, verticals=count)

    def for_steps(self, steps: int, *, verticals: int) -> SpecialistConfig:
        """Returns the training of a model for so many verticals by another number of steps."""
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
    """How the student is trained.

    Attributes:
      model: what to train; its embedding has the length of the targets.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      init_from: directory of an earlier run whose student a stage starts from instead, or None.
      loss: how the distance to the targets is measured, one of `REGRESSION_LOSSES`.
      standardise: whether that distance takes all dimensions of the targets as equally wide, see
        `standardising_scale`.
      optimization: the optimiser and number of steps; 0 for as many as fit the images, see
        `settled`.
      input: how training input is made.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.

    Raises:
      UserError: if the loss is one whose targets cannot be standardised, and they are to be.
    """

    model: ModelConfig = ModelConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=0, learning_rate=2e-3)
    init_weights: str = "none"
    init_from: Path | None = None
    batch_size: int = setting(64, "images in a batch of the student", 1, flag="student_batch_size")
    vertical_weights: str = setting(
        "images",
        "how often the student sees a vertical: as often as it has images, all verticals equally "
        "often, or by the square root of their numbers of images",
        choices=VERTICAL_WEIGHTS,
        flag="student_vertical_weights",
        seldom=True,
    )
    loss: str = setting(
        "mse",
        "how the student's distance to its targets is measured: mse, squared error; cosine, 1 - "
        f"cosine; smooth_l1, squared error up to a difference of {SMOOTH_L1_DELTA:g} in a "
        "dimension and absolute beyond",
        choices=REGRESSION_LOSSES,
        flag="student_loss",
        seldom=True,
    )
    standardise: bool = setting(
        False,
        "measure that distance as if targets were equally wide in all dimensions; with mse and "
        "smooth_l1",
        flag="standardise_targets",
        seldom=True,
    )
    input: InputConfig = InputConfig()
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        # Now, and not when specialists have been trained for it.
        if self.standardise and self.loss == COSINE:
            raise UserError(
                f"--standardise_targets with --student_loss={COSINE}: expected mse or "
                "smooth_l1, as other scales of dimensions make other angles"
            )

    def settled(self, learnt: int, images: int) -> StudentConfig:
        """Returns the same with everything decided that depends on the number of images.

        A student is patient: it gains from many passes, as augmentation shows it new views.

        Args:
          learnt: images that it learns from.
          images: training images of the dataset.
        """
        optimization = self.optimization.settled(images)
        if not optimization.steps:
            steps = math.ceil(STUDENT_EPOCHS * learnt / self.batch_size)
            steps = min(max(steps, LEAST_STUDENT_STEPS), MOST_STUDENT_STEPS)
            optimization = dataclasses.replace(optimization, steps=steps)
        return dataclasses.replace(self, optimization=optimization)

    def for_verticals(self, count: int, total: int) -> StudentConfig:
        """Returns the training of a student of some verticals: their share of all verticals' steps.

        The backbone is trained for a step at least if it is trained in the whole, and for none if
        it is not.

        Args:
          count: verticals of the student, 1 or more.
          total: verticals that this configuration is for.
        """
        whole = self.optimization
        if not whole.steps:
            # The number of images decides, see `settled`.
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
    """How the detector is trained.

    Attributes:
      model: what to train; its verticals are those of the photographs' garments.
      optimization: the optimiser and number of steps.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      input: how training input is made; photographs cannot be turned.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.
    """

    model: DetectorConfig = DetectorConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=3000, learning_rate=2e-3)
    init_weights: str = "none"
    batch_size: int = setting(
        8, "photographs in a batch of the detector", 1, flag="detector_batch_size", seldom=True
    )
    input: InputConfig = InputConfig(
        AugmentConfig(zoom=0.2, translation=0.1, brightness=0.1, contrast=0.1, saturation=0.1)
    )
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()


TrainingConfig = Union[SpecialistConfig, StudentConfig, DetectorTraining]
"""How a model is trained, of whatever kind."""
