"""The common part of all trainings: from records to a trained model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.training.execution import reset_and_seed
from apparel_embed.training.frozen_views import FrozenViews
from apparel_embed.training.input import (
    Augment,
    MoveTargets,
    Sampler,
    augmentation,
    training_batches,
)
from apparel_embed.training.loop import TrainingLoop
from apparel_embed.training.strategy import batch_share, make_strategy
from apparel_embed.training.summaries import BatchSummaries, Measure, first_batch_sheet
from apparel_embed.training.validation import Validation

if TYPE_CHECKING:
    from apparel_embed.training.config import TrainingConfig

Sheet = Callable[[PreparedDataset, np.ndarray, ImageStore, Sampler, Augment], np.ndarray]
"""Draws the first images of the first batch, as `first_batch_sheet` does."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingTask:
    """The task that a model learns.

    Attributes:
      records: int64 [n] record numbers of the images to learn from.
      sampler: chooses the positions in `records` of each step's batch.
      loss: maps the replica's (labels or targets, outputs) to the whole batch's scalar.
      validation: maps the memory in GiB left for images to the validation; returns None if weights
        cannot be compared.
      measure: as in `BatchSummaries`.
      build_model: builds the initial model.
      save: as in `TrainingLoop`.
      keep_start: as in `TrainingLoop`.
      targets: float32 [n, dim] to learn; None to learn from the sampler's labels.
      move_targets: maps targets and random numbers, as `Augmenter` takes them, to the targets of
        the augmented images; None if they do not change.
      sheet: draws the first images.
    """

    records: np.ndarray
    sampler: Sampler
    loss: WholeBatchLoss
    validation: Callable[[float], Validation | None]
    measure: Measure | None
    build_model: Callable[[], tf.keras.Model]
    save: Callable[[Path, tf.keras.Model], None]
    keep_start: bool = False
    targets: np.ndarray | None = None
    move_targets: MoveTargets | None = None
    sheet: Sheet = first_batch_sheet


def train_model(
    dataset: PreparedDataset,
    task: TrainingTask,
    config: TrainingConfig,
    directory: Path,
    what: str,
    views: np.ndarray | None = None,
) -> tuple[TrainingLoop, dict]:
    """Trains a model on images of a dataset and writes it to `directory/model`.

    Args:
      dataset: a prepared dataset.
      task: what to learn.
      config: how to train.
      directory: the stage's directory, which may contain files of an interrupted training.
      what: name of the model, for progress and messages.
      views: float32 [n, views, features] of the records from `compute_views`, if the backbone is
        frozen; None to augment in every step.

    Returns:
      The loop, whose model has the kept weights, and its report.
    """
    reset_and_seed(config.optimization.seed, config.execution.deterministic)
    strategy, size = make_strategy(config.strategy), config.model.image_size
    cache_gib = config.input.cache_gib
    store = ImageStore(dataset, task.records, size, cache_gib, what)
    left = cache_gib - store.gib
    validation = task.validation(left)
    if validation is None:
        logging.info("%s: nothing to validate on in split val; keeping the last weights", what)
    augment: Augment = augmentation(config.input, strategy)
    sheet = functools.partial(task.sheet, dataset, task.records, store, task.sampler, augment)
    source: ImageStore | FrozenViews = store
    if views is not None:
        with strategy.scope():
            source = FrozenViews(views)
        augment = source.augment
    steps, share = config.optimization.steps, batch_share(strategy)
    loop = TrainingLoop(
        build_model=task.build_model,
        save=task.save,
        batches=training_batches(
            source, task.sampler, steps, share, task.targets, task.move_targets
        ),
        loss=task.loss,
        validation=validation,
        optimization=config.optimization,
        config=config.loop,
        strategy=strategy,
        directory=directory,
        what=what,
        augment=augment,
        execution=config.execution,
        summaries=BatchSummaries(task.measure, sheet),
        from_features=views is not None,
        keep_start=task.keep_start,
    )
    result = loop.run()
    return loop, {"parameters": loop.model.count_params(), **result}
