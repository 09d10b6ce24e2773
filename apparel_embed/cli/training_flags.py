"""Flags of trainings, and the configurations made from them.

A binary makes the groups it needs at module level, which defines their flags, and asks them for
configurations after parsing.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli.augment_flags import AugmentFlags
from apparel_embed.cli.define import define_number, define_seed
from apparel_embed.cli.execution_flags import ExecutionFlags
from apparel_embed.cli.model_flags import ModelFlags
from apparel_embed.data.sampler import VERTICAL_WEIGHTS
from apparel_embed.losses.config import LossConfig, is_margin
from apparel_embed.losses.distances import DISTANCES
from apparel_embed.losses.registry import LOSSES
from apparel_embed.losses.regression import REGRESSION_LOSSES, SMOOTH_L1_DELTA
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.optimization import (
    FEW_PICTURES,
    LEARNING_RATE_SCALES,
    OPTIMIZERS,
    OptimizationConfig,
)
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import (
    LEAST_STUDENT_STEPS,
    MOST_STUDENT_STEPS,
    STUDENT_EPOCHS,
    StudentConfig,
)

TRAIN_BACKBONE: dict[str, bool | None] = {"yes": True, "no": False, "auto": None}


class TrainingFlags:
    """What the trainings of specialists and student share."""

    def __init__(self) -> None:
        loop, optimization = LoopConfig(), OptimizationConfig(steps=1)
        self._seed = define_seed("initial weights, batches and augmentation")
        self._execution = ExecutionFlags()
        self._optimizer = flags.DEFINE_enum(
            "optimizer", optimization.optimizer, list(OPTIMIZERS), "optimiser"
        )
        self._scale_learning_rate = flags.DEFINE_enum(
            "scale_learning_rate",
            optimization.scale_learning_rate,
            list(LEARNING_RATE_SCALES),
            "how learning rates grow with the number of replicas: not (the batch does not grow "
            "either, it is divided between them), with it, or with its square root",
        )
        self._weight_decay = define_number(
            "weight_decay",
            optimization.weight_decay,
            "decoupled weight decay, relative to the learning rate",
            0.0,
            1.0,
        )
        self._warmup_fraction = define_number(
            "warmup_fraction",
            optimization.warmup_fraction,
            "part of the steps during which the learning rate rises "
            "from 0; it then falls to 0 along a cosine",
            0.0,
            1.0,
        )
        self._train_backbone = flags.DEFINE_enum(
            "train_backbone",
            "yes",
            list(TRAIN_BACKBONE),
            "whether the backbone is trained, too: yes; no, which keeps its initial weights and "
            f"its batch norms' statistics; auto, yes from {FEW_PICTURES:,} training images on",
        )
        self._loop = {
            name: define_number(name, getattr(loop, name), what, low)
            for name, what, low in (
                (
                    "validate_every",
                    "steps between validations, of which the best one's weights are kept; 0 for "
                    "ten in a training",
                    0,
                ),
                (
                    "patience",
                    "validations without a better one after which a training ends; 0 for never",
                    0,
                ),
                (
                    "checkpoint_every",
                    "steps between checkpoints that an interrupted training goes on from",
                    1,
                ),
                (
                    "log_every",
                    "steps between TensorBoard's numbers and histograms, each a forward pass more",
                    1,
                ),
                (
                    "keep_checkpoints",
                    "newest checkpoints that a training keeps until it is finished, beside that "
                    "of the best weights",
                    1,
                ),
            )
        }
        self._augment = AugmentFlags()
        self._views = define_number(
            "frozen_views",
            InputConfig().views,
            "augmented views of each image that are put through a backbone that is not trained, "
            "once for all trainings; 0 to augment anew in every step",
            0,
            1024,
        )

    def start(self) -> None:
        """Meets the other processes, if there are some: to be called before anything else.

        Raises:
          UserError: if the strategy cannot be had here.
        """
        self._execution.start()

    @property
    def strategy(self) -> str:
        """Name of the distribution strategy."""
        return self._execution.strategy

    @property
    def seed(self) -> int:
        """Seed of everything random in training."""
        return self._seed.value

    def optimization(
        self, *, steps: int, learning_rate: float, frozen_steps: int
    ) -> OptimizationConfig:
        """Returns the configuration of the optimiser."""
        return OptimizationConfig(
            steps=steps,
            optimizer=self._optimizer.value,
            learning_rate=learning_rate,
            weight_decay=self._weight_decay.value,
            warmup_fraction=self._warmup_fraction.value,
            frozen_steps=frozen_steps,
            train_backbone=TRAIN_BACKBONE[self._train_backbone.value],
            seed=self._seed.value,
            scale_learning_rate=self._scale_learning_rate.value,
        )

    def execution(self) -> ExecutionConfig:
        """Returns how steps are computed."""
        return self._execution.config()

    def input(self) -> InputConfig:
        """Returns the configuration of training input."""
        return InputConfig(
            augment=self._augment.config(),
            cache_gib=self._execution.cache_gib,
            views=self._views.value,
        )

    def loop(self) -> LoopConfig:
        """Returns the configuration of the loop."""
        return LoopConfig(**{name: flag.value for name, flag in self._loop.items()})


class SpecialistFlags:
    """How specialists, and the combined model, are trained."""

    def __init__(self, model: ModelFlags, training: TrainingFlags) -> None:
        default = SpecialistConfig(ModelConfig(), OptimizationConfig(steps=1))
        self._model, self._training = model, training
        self._schedule = _ScheduleFlags(
            "specialist",
            "training steps of a specialist for each of its verticals: a group of two trains for "
            "twice as many",
            steps=225,
            learning_rate=2e-3,
        )
        self._items_per_batch = define_number(
            "items_per_batch", default.items_per_batch, "P, items in a batch of triplets", 2
        )
        self._pictures_per_item = define_number(
            "pictures_per_item",
            default.pictures_per_item,
            "K, pictures of each item in a batch of triplets",
            2,
        )
        self._min_pictures = define_number(
            "min_pictures",
            default.min_pictures,
            "items with fewer training pictures are left out of "
            "triplets; with 1, an item seen once counts, its positives "
            "being augmentations of one picture",
            1,
        )
        self._loss = _define_loss_flags(default.loss)

    def config(self) -> SpecialistConfig:
        """Returns the configuration of a specialist's training."""
        return SpecialistConfig(
            model=self._model.config(),
            init_weights=self._model.init_weights,
            init_from=self._model.init_from,
            optimization=self._schedule.optimization(self._training),
            items_per_batch=self._items_per_batch.value,
            pictures_per_item=self._pictures_per_item.value,
            min_pictures=self._min_pictures.value,
            loss=LossConfig(**{name: flag.value for name, flag in self._loss.items()}),
            input=self._training.input(),
            loop=self._training.loop(),
            strategy=self._training.strategy,
            execution=self._training.execution(),
        )


class StudentFlags:
    """How the student is trained."""

    def __init__(self, model: ModelFlags, training: TrainingFlags) -> None:
        default = StudentConfig(ModelConfig(), OptimizationConfig(steps=1))
        self._model, self._training = model, training
        self._schedule = _ScheduleFlags(
            "student",
            f"training steps of the student; 0 for {STUDENT_EPOCHS} passes over its images, "
            f"{LEAST_STUDENT_STEPS:,} to {MOST_STUDENT_STEPS:,} steps",
            steps=0,
            learning_rate=2e-3,
            least_steps=0,
        )
        self._batch_size = define_number(
            "student_batch_size", default.batch_size, "pictures in a batch of the student", 1
        )
        self._vertical_weights = flags.DEFINE_enum(
            "student_vertical_weights",
            default.vertical_weights,
            list(VERTICAL_WEIGHTS),
            "how often the student sees a vertical: as often as it has pictures, all verticals "
            "equally often, or by the square root of their numbers of pictures",
        )
        self._loss = flags.DEFINE_enum(
            "student_loss",
            default.loss,
            list(REGRESSION_LOSSES),
            "how the student's distance to its targets is measured: mse, squared error; cosine, 1 "
            "- cosine; smooth_l1, squared error up to a difference of "
            f"{SMOOTH_L1_DELTA:g} in a dimension and absolute beyond",
        )
        self._standardise = flags.DEFINE_bool(
            "standardise_targets",
            default.standardise,
            "measure that distance as if targets were equally wide in all dimensions; with mse and "
            "smooth_l1",
        )

    def config(self) -> StudentConfig:
        """Returns the configuration of the student's training."""
        return StudentConfig(
            model=self._model.config(),
            init_weights=self._model.init_weights,
            init_from=self._model.init_from,
            optimization=self._schedule.optimization(self._training),
            batch_size=self._batch_size.value,
            vertical_weights=self._vertical_weights.value,
            loss=self._loss.value,
            standardise=self._standardise.value,
            input=self._training.input(),
            loop=self._training.loop(),
            strategy=self._training.strategy,
            execution=self._training.execution(),
        )


class _ScheduleFlags:
    """Steps and learning rate, which specialists and student have each of their own."""

    def __init__(
        self,
        who: str,
        steps_of: str,
        *,
        steps: int,
        learning_rate: float,
        least_steps: int = 1,
    ) -> None:
        self._steps = define_number(f"{who}_steps", steps, steps_of, least_steps)
        self._learning_rate = define_number(
            f"{who}_learning_rate",
            learning_rate,
            f"learning rate of the {who} at its peak",
            0.0,
            10.0,
        )
        self._frozen_steps = define_number(
            f"{who}_frozen_steps", 0, f"first steps of the {who} that train all but the backbone", 0
        )

    def optimization(self, training: TrainingFlags) -> OptimizationConfig:
        return training.optimization(
            steps=self._steps.value,
            learning_rate=self._learning_rate.value,
            frozen_steps=self._frozen_steps.value,
        )


def _define_loss_flags(default: LossConfig) -> dict[str, flags.FlagHolder]:
    allowed = ", ".join(f"{limit:g} with {name}" for name, limit in DISTANCES.items())
    holders = {
        "name": flags.DEFINE_enum(
            "loss",
            default.name,
            list(LOSSES),
            "loss of triplet models; tfa_semi_hard is TensorFlow Addons' own semi-hard loss, whose "
            "memory grows with the batch's cube",
        ),
        "margin": flags.DEFINE_float(
            "margin",
            default.margin,
            "by how much a negative should be farther than a positive, between unit vectors "
            f"(above 0, to {allowed})",
        ),
        "distance": flags.DEFINE_enum(
            "distance", default.distance, list(DISTANCES), "distance that the loss measures"
        ),
    }
    flags.register_multi_flags_validator(
        ["margin", "distance"],
        lambda values: is_margin(values["margin"], values["distance"]),
        f"--margin: allowed is above 0, to {allowed}",
    )
    return holders
