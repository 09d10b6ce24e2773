"""Training of a specialist: an embedding model of one group of verticals, with triplets."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import PKSampler
from apparel_embed.inference.embed import Embedder
from apparel_embed.losses.registry import make_loss
from apparel_embed.models.embedding import save_embedding_model, start_embedding_model, trunk_model
from apparel_embed.models.principal import project_principally
from apparel_embed.training.config import SpecialistConfig
from apparel_embed.training.execution import reset_and_seed
from apparel_embed.training.readiness import LEAST_ITEMS, usable_items
from apparel_embed.training.summaries import triplet_measures
from apparel_embed.training.trainer import TrainingTask, train_model
from apparel_embed.training.validation import make_validation

# Maximum number of images whose features initialise the projection of a pretrained model.
_MOST_PROJECTED = 5_000


def train_specialist(
    dataset: PreparedDataset,
    verticals: Sequence[str],
    config: SpecialistConfig,
    directory: Path,
    what: str,
    start: Path | None = None,
    views: np.ndarray | None = None,
) -> dict:
    """Trains a triplet model and writes it to `directory/model`.

    Args:
      dataset: a prepared dataset with a train split.
      verticals: verticals of its group.
      config: how to train.
      directory: the stage's directory, which may contain files of an interrupted training.
      what: name of the model, for progress and messages.
      start: directory of a trained model to start from, which is kept unchanged if the verticals
        have too few items for triplets. None for the configuration's weights; a pretrained backbone
        then gets a projection from `project_principally`.
      views: float32 [training records of its verticals, views, features] from `compute_views`, if
        the backbone is frozen; None to augment in every step.

    Returns:
      The stage's report.

    Raises:
      UserError: if the verticals have too few items for triplets and there is no model to start
        from, or the architecture of that model differs.
    """
    records = dataset.select(split="train", verticals=verticals)
    items = dataset.codes("item_id")[0][records]
    if start is not None and usable_items(items, config.min_images) < LEAST_ITEMS:
        return _keep(start, verticals, records, config, directory, what)
    try:
        sampler = PKSampler.from_items(
            items,
            items_per_batch=config.items_per_batch,
            images_per_item=config.images_per_item,
            min_images=config.min_images,
            seed=config.optimization.seed,
        )
    except UserError as error:
        raise UserError(f"{what} ({', '.join(verticals)}), split train: {error}") from error
    measure = functools.partial(
        triplet_measures, margin=config.loss.margin, distance=config.loss.distance
    )
    task = TrainingTask(
        records,
        sampler,
        make_loss(config.loss),
        functools.partial(make_validation, dataset, verticals, config.model.image_size),
        measure,
        functools.partial(_build, dataset, records, config, start, views),
        functools.partial(save_embedding_model, config=config.model),
        keep_start=start is not None,
    )
    _, result = train_model(dataset, task, config, directory, what, views)
    return {
        "verticals": list(verticals),
        "train_images": len(records),
        "train_items": sampler.item_count,
        **result,
    }


def _keep(
    start: Path,
    verticals: Sequence[str],
    records: np.ndarray,
    config: SpecialistConfig,
    directory: Path,
    what: str,
) -> dict:
    """Writes the initial model as the result; arguments are those of `train_specialist`."""
    logging.warning(
        "%s (%s): fewer than %d items with %d images or more; keeping the model it starts from",
        what, ", ".join(verticals), LEAST_ITEMS, config.min_images,
    )  # fmt: skip
    reset_and_seed(config.optimization.seed, config.execution.deterministic)
    model = start_embedding_model(config.model, config.init_weights, start)
    save_embedding_model(directory / "model", model, config.model)
    return {
        "verticals": list(verticals),
        "train_images": len(records),
        "train_items": 0,
        "parameters": model.count_params(),
        "kept_step": 0,
        "validation_r_at_1": None,
        "trained_steps": 0,
        "last_loss": math.nan,
        "trained_seconds": 0.0,
    }


def _build(
    dataset: PreparedDataset,
    records: np.ndarray,
    config: SpecialistConfig,
    start: Path | None,
    views: np.ndarray | None,
) -> tf.keras.Model:
    """Returns the initial model of a training; arguments are those of `train_specialist`."""
    model = start_embedding_model(config.model, config.init_weights, start)
    if start is None and config.init_weights != "none":
        if views is not None:
            features = views.mean(axis=1)
        else:
            some = records[:: max(1, -(-len(records) // _MOST_PROJECTED))]
            features = Embedder(trunk_model(model)).records(dataset, some)
        project_principally(model, features)
    return model
