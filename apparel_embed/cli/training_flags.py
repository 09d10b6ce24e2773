"""Flags of models and trainings, and the configurations made from them.

A binary makes the groups it needs at module level, which defines their flags, and asks them for
configurations after parsing.
"""

from __future__ import annotations

import re
from pathlib import Path

from absl import flags

from apparel_embed.cluster import read_cluster
from apparel_embed.data.augment import AugmentConfig
from apparel_embed.data.sampler import VERTICAL_WEIGHTS
from apparel_embed.losses.distances import DISTANCES
from apparel_embed.losses.registry import LOSSES, LossConfig, is_margin
from apparel_embed.losses.regression import REGRESSION_LOSSES, SMOOTH_L1_DELTA
from apparel_embed.models.backbones import BACKBONES
from apparel_embed.models.embedding import POOLINGS, ModelConfig
from apparel_embed.models.precision import PRECISIONS
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.optimization import (
    LEARNING_RATE_SCALES,
    OPTIMIZERS,
    OptimizationConfig,
)
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.strategy import STRATEGIES, make_strategy
from apparel_embed.training.student import StudentConfig


class InitWeightsFlag:
    """Initial weights of the backbone."""

    def __init__(self) -> None:
        presets = [preset for entry in BACKBONES.values() for preset in entry.presets]
        self._init_weights = flags.DEFINE_string(
            "init_weights",
            "none",
            "initial weights of the backbone: none, a Keras weights file (*.h5), or a keras-cv "
            f"preset (needs the network): {', '.join(presets)}",
        )

    @property
    def value(self) -> str:
        """The word none, a path or the name of a preset."""
        return self._init_weights.value


class ModelFlags:
    """What an embedding model is made of."""

    def __init__(self) -> None:
        default = ModelConfig()
        self._backbone = flags.DEFINE_enum(
            "backbone", default.backbone, list(BACKBONES), "backbone of the embedding model"
        )
        self._image_size = flags.DEFINE_integer(
            "image_size",
            default.image_size,
            "side of the square that the model sees, in pixels (32 to 1024)",
            lower_bound=32,
            upper_bound=1024,
        )
        self._embedding_dim = flags.DEFINE_integer(
            "embedding_dim",
            default.embedding_dim,
            "length of an embedding (2 to 4096)",
            lower_bound=2,
            upper_bound=4096,
        )
        self._pooling = flags.DEFINE_enum(
            "pooling", default.pooling, list(POOLINGS), "pooling over height and width"
        )
        self._momentum = flags.DEFINE_float(
            "batch_norm_momentum",
            default.batch_norm_momentum,
            "share of the old moving statistics kept each step (0 to 0.9999); short trainings "
            "need small values",
            lower_bound=0.0,
            upper_bound=0.9999,
        )
        self._init_weights = InitWeightsFlag()
        self._init_from = flags.DEFINE_string(
            "init_from",
            None,
            "directory of a finished run, with the same --backbone, --pooling and --embedding_dim, "
            "from whose models trainings start instead of --init_weights: specialists from those "
            "of the same verticals, or else from the combined model, the combined model from the "
            "combined one, and the student from the student",
        )

    def config(self) -> ModelConfig:
        """Returns the model's configuration."""
        return ModelConfig(
            backbone=self._backbone.value,
            image_size=self._image_size.value,
            embedding_dim=self._embedding_dim.value,
            pooling=self._pooling.value,
            batch_norm_momentum=self._momentum.value,
        )

    @property
    def init_weights(self) -> str:
        """Initial weights of the backbone."""
        return self._init_weights.value

    @property
    def init_from(self) -> Path | None:
        """Directory of an earlier run to start from, if there is one."""
        return Path(self._init_from.value) if self._init_from.value else None


class AugmentFlags:
    """How pictures are augmented."""

    def __init__(self) -> None:
        default = AugmentConfig()
        self._flags: dict[str, flags.FlagHolder] = {
            "flip": flags.DEFINE_bool("augment_flip", default.flip, "mirror half of the pictures")
        }
        for name, what, upper in (
            ("rotation", "largest angle either way, in degrees", 180.0),
            ("zoom", "largest change of size either way, as a fraction of the side", 0.9),
            ("translation", "largest shift either way, as a fraction of the side", 0.9),
            ("brightness", "largest change either way, as a fraction of the value range", 1.0),
            ("contrast", "largest relative change either way", 1.0),
            ("saturation", "largest change either way, 1 from grey to full", 1.0),
            ("hue", "largest turn either way, 1 is half the colour circle", 1.0),
            ("erase", "largest side of an erased rectangle, as a fraction of the side", 1.0),
        ):
            self._flags[name] = flags.DEFINE_float(
                f"augment_{name}",
                getattr(default, name),
                f"{what} (0 to {upper:g}, 0 is off)",
                lower_bound=0.0,
                upper_bound=upper,
            )

    def config(self) -> AugmentConfig:
        """Returns the configuration of augmentation."""
        return AugmentConfig(**{name: flag.value for name, flag in self._flags.items()})


class TrainingFlags:
    """What the trainings of specialists and student share."""

    def __init__(self) -> None:
        loop, optimization = LoopConfig(), OptimizationConfig(steps=1)
        self._seed = flags.DEFINE_integer(
            "seed",
            0,
            "seed of initial weights, batches and augmentation (0 to 2^31 - 1)",
            lower_bound=0,
            upper_bound=2**31 - 1,
        )
        self._strategy = flags.DEFINE_enum(
            "strategy",
            "auto",
            list(STRATEGIES),
            "one: the default device; mirrored: all GPUs, each with its part of the batch; "
            "multi_worker: those of all processes that TF_CONFIG names (tools/launch_local.py); "
            "tpu: the TPU that TPU_NAME names; auto: multi_worker where TF_CONFIG names more than "
            "one process, else mirrored where there is more than one GPU",
        )
        self._execution = _ExecutionFlags()
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
        self._weight_decay = flags.DEFINE_float(
            "weight_decay",
            optimization.weight_decay,
            "decoupled weight decay, relative to the learning rate (0 to 1)",
            lower_bound=0.0,
            upper_bound=1.0,
        )
        self._warmup_fraction = flags.DEFINE_float(
            "warmup_fraction",
            optimization.warmup_fraction,
            "part of the steps during which the learning rate rises from 0 (0 to 1); it then falls "
            "to 0 along a cosine",
            lower_bound=0.0,
            upper_bound=1.0,
        )
        self._loop = {
            name: flags.DEFINE_integer(
                name, getattr(loop, name), f"{what} (1 or more)", lower_bound=1
            )
            for name, what in (
                (
                    "validate_every",
                    "steps between validations, of which the best one's weights are kept",
                ),
                (
                    "checkpoint_every",
                    "steps between checkpoints that an interrupted training goes on from",
                ),
                (
                    "log_every",
                    "steps between TensorBoard's numbers and histograms, each a forward pass more",
                ),
                (
                    "keep_checkpoints",
                    "newest checkpoints that a training keeps until it is finished, beside that "
                    "of the best weights",
                ),
            )
        }
        self._cache_gib = flags.DEFINE_float(
            "cache_gib",
            InputConfig().cache_gib,
            "memory for training pictures in GiB (0 or more): decoded ones, or where these do not "
            "fit encoded ones, which are decoded each time; what fits neither way is read each "
            "time, too",
            lower_bound=0.0,
        )
        self._augment = AugmentFlags()

    def start(self) -> None:
        """Meets the other processes, if there are some: to be called before anything else.

        Raises:
          UserError: if the strategy cannot be had here.
        """
        if read_cluster() is not None or self._strategy.value in ("multi_worker", "tpu"):
            make_strategy(self._strategy.value)

    @property
    def strategy(self) -> str:
        """Name of the distribution strategy."""
        return self._strategy.value

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
            seed=self._seed.value,
            scale_learning_rate=self._scale_learning_rate.value,
        )

    def execution(self) -> ExecutionConfig:
        """Returns how steps are computed."""
        return self._execution.config()

    def input(self) -> InputConfig:
        """Returns the configuration of training input."""
        return InputConfig(augment=self._augment.config(), cache_gib=self._cache_gib.value)

    def loop(self) -> LoopConfig:
        """Returns the configuration of the loop."""
        return LoopConfig(**{name: flag.value for name, flag in self._loop.items()})


class _ExecutionFlags:
    """How steps are computed."""

    def __init__(self) -> None:
        default = ExecutionConfig()
        self._precision = flags.DEFINE_enum(
            "precision",
            default.precision,
            list(PRECISIONS),
            "in which the backbone computes while it is trained; weights, embeddings and losses "
            "are float32 in all",
        )
        self._jit_compile = flags.DEFINE_bool(
            "jit_compile",
            default.jit_compile,
            "compile training steps by XLA, which takes up to minutes at the start; one replica",
        )
        self._sync_batch_norm = flags.DEFINE_bool(
            "sync_batch_norm",
            default.sync_batch_norm,
            "several replicas: batch norm by the statistics of the whole batch, as on one device; "
            "without, by those of each replica's part, which is faster and gives other results",
        )
        self._profile_steps = flags.DEFINE_string(
            "profile_steps",
            None,
            "steps of every training to profile for TensorBoard, first:end, such as 10:20 (counted "
            "from 0, without the end)",
        )
        flags.register_validator(
            "profile_steps",
            lambda value: value is None or _is_range(value),
            "allowed are two whole numbers with a colon, the second the greater one, as in 10:20",
        )

    def config(self) -> ExecutionConfig:
        """Returns the configuration."""
        first, _, end = (self._profile_steps.value or "").partition(":")
        return ExecutionConfig(
            precision=self._precision.value,
            jit_compile=self._jit_compile.value,
            sync_batch_norm=self._sync_batch_norm.value,
            profile_steps=(int(first), int(end)) if first else None,
        )


def _is_range(text: str) -> bool:
    found = re.fullmatch(r"(\d+):(\d+)", text)
    return found is not None and int(found[1]) < int(found[2])


class SpecialistFlags:
    """How specialists, and the combined model, are trained."""

    def __init__(self, model: ModelFlags, training: TrainingFlags) -> None:
        default = SpecialistConfig(ModelConfig(), OptimizationConfig(steps=1))
        self._model, self._training = model, training
        self._schedule = _ScheduleFlags("specialist", steps=400, learning_rate=2e-3)
        self._items_per_batch = flags.DEFINE_integer(
            "items_per_batch",
            default.items_per_batch,
            "P, items in a batch of triplets (2 or more)",
            lower_bound=2,
        )
        self._pictures_per_item = flags.DEFINE_integer(
            "pictures_per_item",
            default.pictures_per_item,
            "K, pictures of each item in a batch of triplets (2 or more)",
            lower_bound=2,
        )
        self._min_pictures = flags.DEFINE_integer(
            "min_pictures",
            default.min_pictures,
            "items with fewer training pictures are left out of triplets (1 or more); with 1, an "
            "item seen once counts, its positives being augmentations of one picture",
            lower_bound=1,
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
        self._schedule = _ScheduleFlags("student", steps=3000, learning_rate=2e-3)
        self._batch_size = flags.DEFINE_integer(
            "student_batch_size",
            default.batch_size,
            "pictures in a batch of the student (1 or more)",
            lower_bound=1,
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

    def __init__(self, who: str, *, steps: int, learning_rate: float) -> None:
        self._steps = flags.DEFINE_integer(
            f"{who}_steps", steps, f"training steps of each {who} (1 or more)", lower_bound=1
        )
        self._learning_rate = flags.DEFINE_float(
            f"{who}_learning_rate",
            learning_rate,
            f"learning rate of the {who} at its peak (0 to 10)",
            lower_bound=0.0,
            upper_bound=10.0,
        )
        self._frozen_steps = flags.DEFINE_integer(
            f"{who}_frozen_steps",
            0,
            f"first steps of the {who} that train all but the backbone (0 or more)",
            lower_bound=0,
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
