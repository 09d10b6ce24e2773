"""Training of the student: one model that learns to reproduce its teachers' embeddings."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler, WeightedSampler
from apparel_embed.distillation.agreement import (
    Agreement,
    augmented_agreement,
    diagnose,
    make_agreement,
)
from apparel_embed.distillation.spaces import alignment_rotation
from apparel_embed.evaluation.models import embed_by_model
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.losses.regression import (
    make_regression_loss,
    standardising_scale,
)
from apparel_embed.models.embedding import save_embedding_model, start_embedding_model
from apparel_embed.training.config import StudentConfig
from apparel_embed.training.summaries import target_measures
from apparel_embed.training.trainer import TrainingTask, train_model
from apparel_embed.training.validation import make_validation, recall_within, standard_error

_AUGMENTED_BATCHES = 8
# Images to fit a rotation to: many more than its parameters, few compared with a training.
_ROTATED_BY = 20_000
# Name of the model, for progress and messages.
_WHAT = "unified"


def train_student(
    dataset: PreparedDataset,
    taught: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    config: StudentConfig,
    directory: Path,
    start: Path | None = None,
    views: np.ndarray | None = None,
    more_often: Mapping[str, float] | None = None,
    rotate_start: bool = False,
) -> dict:
    """Trains a student on every image with a target and writes it to `directory/model`.

    Args:
      dataset: the prepared dataset that the targets belong to.
      taught: record numbers int64 [n], and their targets float32 [n, dim].
      held_out: record numbers of split val int64 [m], and their teachers' embeddings float32
        [m, dim], for measuring; m may be 0.
      config: how to train.
      directory: the stage's directory, which may contain files of an interrupted training.
      start: directory of a trained model to start from, or None for the configuration's weights.
        Of the weights within an error of the best on split val, those that agree best with the
        teachers on held-out images are kept; the initial weights are among the candidates.
      views: float32 [n, views, features] of the records from `compute_views`, if the backbone is
        frozen; None to augment in every step.
      more_often: factors by which images of some verticals are seen more often than the others;
        None for no factors.
      rotate_start: whether to first rotate the embeddings of the model to start from onto the
        targets, because they are of another space.

    Returns:
      The stage's report.

    Raises:
      UserError: if targets and model have embeddings of different lengths, there are no targets, or
        the architecture of the model to start from differs.
    """
    records, targets = taught
    agree = make_agreement(dataset, *held_out, config.model.image_size)
    codes, names = dataset.codes("vertical")
    verticals = names[np.unique(codes[records])].tolist()
    sampler = _sampler(names[codes[records]], config, more_often)
    task = _task(
        dataset,
        records,
        targets,
        verticals,
        sampler,
        config,
        start,
        agree,
        rotate=rotate_start,
    )
    loop, result = train_model(dataset, task, config, directory, _WHAT, views)
    embedder = Embedder(loop.model)
    agree_on_train = make_agreement(dataset, *taught, config.model.image_size)
    agreement = Agreement(
        agree_on_train(embedder) or 0.0,
        augmented_agreement(loop.trained, loop.batches(0).take(_AUGMENTED_BATCHES), loop.augment),
        agree(embedder),
        result.get("validation_r_at_1"),
        *_teachers_found(dataset, verticals, held_out),
    )
    interval = config.loop.validation_interval(config.optimization.steps)
    kept, done = result["kept_step"], result["trained_steps"]
    diagnosis = diagnose(agreement, kept_step=kept, trained_steps=done, interval=interval)
    logging.info("%s: %s", _WHAT, diagnosis)
    return {
        "agreement": dataclasses.asdict(agreement),
        "diagnosis": diagnosis,
        "verticals": verticals,
        "train_images": len(records),
        "unlabelled_images": int(np.isin(records, dataset.select(split=UNLABELLED)).sum()),
        **result,
    }


def _teachers_found(
    dataset: PreparedDataset, verticals: Sequence[str], held_out: tuple[np.ndarray, np.ndarray]
) -> tuple[float | None, float]:
    """Returns the teachers' R@1 on split val and its standard error; None and 0 if unknown."""
    images = evaluation_set(dataset, "val", verticals)
    records, embeddings = held_out
    if not answered_queries(images) or not np.isin(images.records, records).all():
        return None, 0.0
    of_set = embeddings[np.searchsorted(records, images.records)]
    recall = float(np.mean(list(recall_within(of_set, images).values())))
    return recall, standard_error(images, verticals)(recall)


def _task(
    dataset: PreparedDataset,
    records: np.ndarray,
    targets: np.ndarray,
    verticals: Sequence[str],
    sampler: EpochSampler,
    config: StudentConfig,
    start: Path | None,
    agree: Callable[[Embedder], float | None],
    *,
    rotate: bool,
) -> TrainingTask:
    """Returns the training task of a student; arguments are those of `train_student`."""
    if targets.shape[1] != config.model.embedding_dim:
        raise UserError(
            f"{_WHAT}: expected targets with --embedding_dim={config.model.embedding_dim} "
            f"dimensions, got {targets.shape[1]}"
        )

    def held_out_cosine(embedder: Embedder) -> float:
        cosine = agree(embedder)
        if cosine is not None:
            tf.summary.scalar("validation/mean_cosine", cosine)
        return cosine or 0.0

    scale = standardising_scale(targets) if config.standardise else None
    rotation = _rotation(dataset, records, targets, start) if start and rotate else None
    return TrainingTask(
        records,
        sampler,
        make_regression_loss(config.loss, scale),
        functools.partial(
            make_validation,
            dataset,
            verticals,
            config.model.image_size,
            prefer=held_out_cosine,
        ),
        target_measures,
        functools.partial(
            start_embedding_model, config.model, config.init_weights, start, rotation
        ),
        functools.partial(save_embedding_model, config=config.model),
        keep_start=start is not None,
        targets=targets,
    )


def _rotation(
    dataset: PreparedDataset, records: np.ndarray, targets: np.ndarray, start: Path
) -> np.ndarray:
    """Returns the rotation that brings a model's embeddings closest to targets."""
    some = slice(None, None, math.ceil(len(records) / _ROTATED_BY))
    embeddings = embed_by_model(dataset, records[some], start).embeddings
    lacking = targets.shape[1] - embeddings.shape[1]
    return alignment_rotation(np.pad(embeddings, ((0, 0), (0, lacking))), targets[some])


def _sampler(
    verticals: np.ndarray, config: StudentConfig, more_often: Mapping[str, float] | None
) -> EpochSampler | WeightedSampler:
    """Returns the sampler of images with the given verticals [n]."""
    size, weights, seed = config.batch_size, config.vertical_weights, config.optimization.seed
    if weights == "images" and not more_often:
        # Shows every image exactly once per epoch, without rounding of weights.
        return EpochSampler.over(len(verticals), batch_size=size, seed=seed)
    return WeightedSampler.of_verticals(
        verticals, weights=weights, batch_size=size, seed=seed, more_often=more_often
    )
