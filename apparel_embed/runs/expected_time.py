"""Estimates how long trainings will take on this machine from measured steps."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from absl import logging

from apparel_embed.data.augment import Augmenter
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.losses.registry import make_loss
from apparel_embed.losses.regression import make_regression_loss
from apparel_embed.models.detector import build_detector
from apparel_embed.models.embedding import build_embedding_model
from apparel_embed.store.record import Workload
from apparel_embed.training.config import (
    DetectorTraining,
    SpecialistConfig,
    StudentConfig,
    TrainingConfig,
)
from apparel_embed.training.detector import make_detector_loss
from apparel_embed.training.input import augmentation
from apparel_embed.training.loop import TrainingLoop
from apparel_embed.training.strategy import make_strategy

_STEPS = 5


def expected_time(
    work: Workload,
    specialist: SpecialistConfig,
    student: StudentConfig,
    images: int,
    detector: DetectorTraining | None = None,
) -> str:
    """Measures a step of each kind on noise images; returns a sentence, or "" without work.

    Args:
      work: the trainings to estimate.
      specialist: how triplet models are trained.
      student: how the student is trained.
      images: number of training images, which settles the configurations.
      detector: how the detector is trained, or None without one.

    Raises:
      UserError: steps cannot be computed with these settings on this machine's replicas.
    """
    specialist = dataclasses.replace(
        specialist, optimization=specialist.optimization.settled(images)
    )
    student = student.settled(images, images)
    batch = specialist.items_per_batch * specialist.images_per_item
    parts, total = [], 0.0
    for count, what, measure, share, digits in (
        (work.triplet_steps, "triplet steps", lambda: triplet_step_seconds(specialist), 1, 3),
        # A view passes through the backbone once, like an image in a step.
        (work.views, "views", lambda: triplet_step_seconds(specialist), batch, 4),
        (work.student_steps, "student steps", lambda: student_step_seconds(student), 1, 3),
        (
            work.detector_steps if detector else 0,
            "detector steps",
            lambda: detector_step_seconds(detector or DetectorTraining()),
            1,
            3,
        ),
    ):
        if count:
            logging.info("measuring %d %s on noise images", _STEPS, what)
            each = measure() / share
            total += count * each
            parts.append(f"{count:,} {what} at {each:.{digits}f} s each")
    if not parts:
        return ""
    about = datetime.timedelta(seconds=round(total))
    return (
        f"Training will take about {about} on this machine: {', '.join(parts)}, as just measured. "
        "Not included: preparing images, a search for groups, validation and evaluation."
    )


def triplet_step_seconds(config: SpecialistConfig) -> float:
    """Returns the seconds per step of a triplet model on this machine.

    Args:
      config: how it is trained, settled.
    """
    size = config.items_per_batch * config.images_per_item
    labels = tf.range(size) // config.images_per_item
    return _step_seconds(config, labels, make_loss(config.loss), _embedding_model(config))


def student_step_seconds(config: StudentConfig) -> float:
    """Returns the seconds per step of the student on this machine.

    Args:
      config: how it is trained, settled.
    """
    targets = tf.random.stateless_normal([config.batch_size, config.model.embedding_dim], [0, 1])
    targets = tf.math.l2_normalize(targets, axis=1)
    loss = make_regression_loss(config.loss, None)
    return _step_seconds(config, targets, loss, _embedding_model(config))


def detector_step_seconds(config: DetectorTraining) -> float:
    """Returns the seconds per step of the detector on this machine.

    Args:
      config: how it is trained.
    """
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, verticals=("garment",))
    )
    targets = tf.tile([[0.0, 0.25, 0.25, 0.75, 0.75]], [config.batch_size, 1])
    build = functools.partial(build_detector, config.model)
    return _step_seconds(config, targets, make_detector_loss(config.model), build)


def _embedding_model(config: SpecialistConfig | StudentConfig) -> Callable[[], tf.keras.Model]:
    return functools.partial(build_embedding_model, config.model, "none")


def _step_seconds(
    config: TrainingConfig,
    labels: tf.Tensor,
    loss: WholeBatchLoss,
    build: Callable[[], tf.keras.Model],
) -> float:
    """Returns the seconds per step on noise with labels or targets [batch, ...]."""
    strategy = make_strategy(config.strategy)
    with tempfile.TemporaryDirectory() as directory:
        loop = TrainingLoop(
            build_model=build,
            save=lambda directory, model: None,
            batches=lambda _: _noise(config.model.image_size, labels, strategy),
            loss=loss,
            validation=None,
            optimization=config.optimization,
            config=config.loop,
            strategy=strategy,
            directory=Path(directory),
            what="measuring",
            augment=augmentation(config.input, strategy),
            execution=config.execution,
        )
        return loop.measured_step(_STEPS)


def _noise(size: int, labels: tf.Tensor, strategy: tf.distribute.Strategy) -> tf.data.Dataset:
    """Returns endless batches ((images, draws), labels) of noise, of the size of a replica's."""
    part = max(1, len(labels) // strategy.num_replicas_in_sync)
    seed = tf.constant([0, 1])
    pixels = tf.random.stateless_uniform([part, size, size, 3], seed, 0, 256, tf.int32)
    inputs = tf.cast(pixels, tf.uint8), Augmenter.draw(seed, part)
    return tf.data.Dataset.from_tensors((inputs, labels[:part])).repeat()
