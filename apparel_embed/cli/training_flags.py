"""Flags of models and trainings, and the configurations built from them.

A binary creates the groups it needs at module level, which defines their flags, and gets the
configurations from them after parsing.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from absl import flags

from apparel_embed.cli.define import (
    MODEL,
    RARE,
    TRAINING,
    WHERE,
    ConfigFlags,
    VariantFlags,
    define,
)
from apparel_embed.cli.recipes import define_recipe
from apparel_embed.common.cluster import read_cluster
from apparel_embed.data.config import AugmentConfig
from apparel_embed.inference.config import EmbeddingConfig
from apparel_embed.losses.config import ALLOWED_MARGINS, LossConfig, is_margin
from apparel_embed.losses.registry import LOSSES
from apparel_embed.models.backbones import BACKBONES
from apparel_embed.models.config import DetectorConfig, ModelConfig
from apparel_embed.training.config import (
    LEAST_STUDENT_STEPS,
    MOST_STUDENT_STEPS,
    STUDENT_EPOCHS,
    DetectorTraining,
    SpecialistConfig,
    StudentConfig,
)
from apparel_embed.training.settings import (
    FEW_IMAGES,
    STRATEGIES,
    ExecutionConfig,
    InputConfig,
    LoopConfig,
    OptimizationConfig,
)

_TRAIN_BACKBONE: dict[str, bool | None] = {"yes": True, "no": False, "auto": None}

# Settings that specialists and student have separately.
_SCHEDULE = ("learning_rate", "frozen_steps")
_MOMENTUM = "batch_norm_momentum"


def init_weights_flag() -> flags.FlagHolder[str]:
    """Defines --init_weights, the backbone's initial weights: none, a path or a preset's name."""
    presets = [preset for entry in BACKBONES.values() for preset in entry.presets]
    return define(
        "init_weights",
        SpecialistConfig.init_weights,
        "initial weights of the backbone: none, a Keras weights file (*.h5), or a keras-cv preset "
        f"(needs the network): {', '.join(presets)}",
        group=MODEL,
    )


def _init_from_flag() -> flags.FlagHolder[str]:
    return define(
        "init_from",
        None,
        "directory of a finished run, with the same --backbone, --pooling and --embedding_dim, "
        "whose models trainings start from: student from student, combined model from combined "
        "model, specialists from those of the same verticals or the combined model",
        group=MODEL,
    )


class EmbeddingFlags:
    """Flags for embedding images."""

    def __init__(self) -> None:
        self._config = ConfigFlags(EmbeddingConfig, WHERE)

    def start(self) -> None:
        """Applies these settings to all images embedded from now on."""
        from apparel_embed.inference.image_store import embed_by  # Imports TensorFlow.

        embed_by(self._config.config())


class TrainingFlags:
    """Flags that all trainings share, including those of models.

    Args:
      of_embeddings: whether specialists or a student are trained. A binary that trains only a
        detector has no flags for an embedding model or its augmentation.
    """

    def __init__(self, of_embeddings: bool = True) -> None:
        self.of_embeddings = of_embeddings
        if of_embeddings:
            define_recipe()
        self._embedding = EmbeddingFlags()
        self._model = ConfigFlags(ModelConfig, MODEL, only=() if of_embeddings else (_MOMENTUM,))
        self._init_weights = init_weights_flag()
        self._init_from = _init_from_flag() if of_embeddings else None
        self._optimization = ConfigFlags(OptimizationConfig, TRAINING, without=_SCHEDULE)
        self._train_backbone = define(
            "train_backbone",
            "yes",
            "whether the backbone is trained, too: yes; no, which keeps its initial weights and "
            f"batch norm statistics; auto, yes with {FEW_IMAGES:,} training images or more",
            choices=_TRAIN_BACKBONE,
            rare=True,
        )
        self._loop = ConfigFlags(LoopConfig, TRAINING)
        self._augment = (
            ConfigFlags(AugmentConfig, "Augmentation", prefix="augment_") if of_embeddings else None
        )
        self._input = ConfigFlags(InputConfig, WHERE)
        self._strategy = define(
            "strategy",
            SpecialistConfig.strategy,
            "one: the default device; mirrored: all GPUs, each with its part of the batch; "
            "multi_worker: the devices of all processes that TF_CONFIG names "
            "(tools/launch_local.py); tpu: the TPU that TPU_NAME names; auto: multi_worker if "
            "TF_CONFIG names more than one process, else mirrored if there is more than one GPU",
            choices=STRATEGIES,
            group=WHERE,
        )
        self._execution = ConfigFlags(ExecutionConfig, WHERE)
        self._deterministic = define(
            "deterministic",
            None,
            "only use operations with bit-identical results in every run, some of them slow on a "
            "GPU; by default on machines without GPUs",
            kind=bool,
            rare=True,
        )
        self._profile_steps = define(
            "profile_steps",
            None,
            "steps of every training to profile for TensorBoard, first:end, such as 10:20 (counted "
            "from 0, excluding the end)",
            rare=True,
        )
        flags.register_validator(
            "profile_steps",
            lambda value: value is None or _parse_steps(value) is not None,
            "expected first:end, two whole numbers with first < end, such as 10:20",
        )

    def start(self) -> None:
        """Connects to the other processes, if any. Must be called before anything else.

        Raises:
          UserError: the strategy is not available on this machine.
        """
        from apparel_embed.training.strategy import make_strategy  # Imports TensorFlow.

        self._embedding.start()
        if read_cluster() is not None or self._strategy.value in ("multi_worker", "tpu"):
            make_strategy(self._strategy.value)

    @property
    def seed(self) -> int:
        """Seed of all randomness in training."""
        return self._optimization.values()["seed"]

    @property
    def embedding_dim(self) -> int:
        """Length of an embedding."""
        return self._model.config().embedding_dim

    @property
    def init_from(self) -> Path | None:
        """Directory of an earlier run to start from, or None."""
        given = self._init_from.value if self._init_from is not None else None
        return Path(given) if given else None

    def values(self, schedule: _ScheduleFlags) -> dict[str, Any]:
        """Returns the values of the fields that both configurations share, keyed by field name."""
        return {
            "model": self._model.config(),
            "init_weights": self._init_weights.value,
            "init_from": self.init_from,
            "optimization": self._optimization.config(
                train_backbone=_TRAIN_BACKBONE[self._train_backbone.value], **schedule.values()
            ),
            "input": self._input.config(
                augment=self._augment.config() if self._augment else AugmentConfig()
            ),
            "loop": self._loop.config(),
            "strategy": self._strategy.value,
            "execution": self._execution.config(
                profile_steps=_parse_steps(self._profile_steps.value),
                deterministic=self._deterministic.value,
            ),
        }


def _parse_steps(text: str | None) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+):(\d+)", text or "")
    steps = (int(found[1]), int(found[2])) if found else None
    return steps if steps and steps[0] < steps[1] else None


class _ScheduleFlags:
    """Steps and learning rate, which specialists and student have separately."""

    def __init__(
        self,
        who: str,
        default: OptimizationConfig,
        steps: str,
        least: int,
        group: str = TRAINING,
    ) -> None:
        self._steps = define(f"{who}_steps", default.steps, steps, least, group=group)
        self._others = ConfigFlags(
            OptimizationConfig,
            group,
            defaults={name: getattr(default, name) for name in _SCHEDULE},
            prefix=f"{who}_",
            only=_SCHEDULE,
        )

    def values(self) -> dict[str, Any]:
        return {"steps": self._steps.value, **self._others.values()}


class SpecialistFlags:
    """Flags for training specialists and the combined model."""

    def __init__(self, training: TrainingFlags) -> None:
        self._training = training
        self._schedule = _ScheduleFlags(
            "specialist",
            SpecialistConfig.optimization,
            "training steps of a specialist for each of its verticals: a group of two trains for "
            "twice as many steps",
            1,
        )
        self._config = ConfigFlags(SpecialistConfig, TRAINING)
        configs = {name: loss.config for name, loss in LOSSES.items()}
        self._loss = VariantFlags("loss", LossConfig, configs, TRAINING)
        flags.register_multi_flags_validator(
            ["margin", "distance"],
            lambda values: is_margin(values["margin"], values["distance"]),
            f"--margin: expected a value above 0, up to {ALLOWED_MARGINS}",
        )

    def config(self) -> SpecialistConfig:
        """Returns the configuration of a specialist's training."""
        loss = self._loss.config(self._loss.shared.values()["name"])
        return self._config.config(loss=loss, **self._training.values(self._schedule))


class StudentFlags:
    """Flags for training the student."""

    def __init__(self, training: TrainingFlags) -> None:
        self._training = training
        self._schedule = _ScheduleFlags(
            "student",
            StudentConfig.optimization,
            f"training steps of the student; 0 for {STUDENT_EPOCHS} epochs, limited to "
            f"{LEAST_STUDENT_STEPS:,} to {MOST_STUDENT_STEPS:,} steps",
            0,
        )
        self._config = ConfigFlags(StudentConfig, TRAINING)

    def config(self) -> StudentConfig:
        """Returns the configuration of the student's training."""
        return self._config.config(**self._training.values(self._schedule))


class DetectorFlags:
    """Flags for training the detector."""

    def __init__(self, training: TrainingFlags) -> None:
        self._training = training
        self._schedule = _ScheduleFlags(
            "detector",
            DetectorTraining.optimization,
            "training steps of the detector",
            1,
            RARE,
        )
        self._model = ConfigFlags(DetectorConfig, MODEL, without=(_MOMENTUM,))
        self._config = ConfigFlags(DetectorTraining, TRAINING)

    def config(self) -> DetectorTraining:
        """Returns the configuration of the detector's training."""
        values = self._training.values(self._schedule)
        embedder = values.pop("model")
        model = self._model.config(**{_MOMENTUM: embedder.batch_norm_momentum})
        del values["init_from"]
        # Photographs have their own augmentation: boxes cannot be rotated.
        augment = DetectorTraining.input.augment
        values["input"] = dataclasses.replace(values["input"], augment=augment)
        if self._training.of_embeddings and model.backbone != embedder.backbone:
            # --init_weights are those of the embedding model's backbone.
            values["init_weights"] = "none"
        return self._config.config(model=model, **values)
