"""Training of the detector, on whole photographs with the boxes of their garments."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.augment import Augmenter
from apparel_embed.data.labelled_sheet import Box, draw_boxes
from apparel_embed.data.photographs import Garments, garments_of
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler
from apparel_embed.evaluation.detection import (
    average_precision,
    best_threshold,
    boxes_to_draw,
    found_garments,
)
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import ImageStore, decoded_batches, on_device
from apparel_embed.losses.detection import detection_loss
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.models.config import DetectorConfig
from apparel_embed.models.detector import (
    build_detector,
    cell_centres,
    save_detector,
    split_cells,
)
from apparel_embed.training.config import DetectorTraining
from apparel_embed.training.input import Augment, MoveTargets, Sampler, first_images
from apparel_embed.training.trainer import TrainingTask, train_model
from apparel_embed.training.validation import AP50, Validation

# Maximum number of photographs of split val to validate on; more would change little.
_MOST_VALIDATED = 1000
# Garments with a smaller fraction left in the square after augmentation are dropped.
_LEAST_LEFT = 0.3
_NO_GARMENT = -1.0
# With fewer garments per photograph, most likely not all of them are listed.
_FEW_GARMENTS = 1.1
_MOST_SHOWN = 12


def train_detector(
    dataset: PreparedDataset,
    config: DetectorTraining,
    directory: Path,
    start: Path | None = None,
) -> dict[str, Any]:
    """Trains a detector on photographs of split train and writes it to `directory/model`.

    Args:
      dataset: photographs, as prepared with `photographs`.
      config: how to train; the detector distinguishes the verticals of the boxes in split train.
      directory: the stage's directory, which may contain files of an interrupted training.
      start: directory of an embedding model whose backbone to start from, or None. Such a backbone
        is trained on garments, so the detector needs a fraction of the steps.

    Returns:
      The stage's report.

    Raises:
      UserError: if no photograph of split train has a garment, or the embedding model has another
        backbone.
    """
    records = dataset.select(split="train")
    garments = garments_of(dataset, records)
    if not len(garments.photographs):
        raise UserError(f"{dataset.directory}: split train has no photograph with a box")
    warn_of_single_garments(len(garments.photographs), len(set(garments.photographs.tolist())))
    verticals = tuple(sorted(set(garments.verticals)))
    model = dataclasses.replace(config.model, verticals=verticals)
    config = dataclasses.replace(config, model=model)
    targets = _targets(garments, len(records), verticals)
    moves = functools.partial(move_garments, Augmenter(config.input.augment))
    task = TrainingTask(
        records,
        EpochSampler.over(
            len(records), batch_size=config.batch_size, seed=config.optimization.seed
        ),
        make_detector_loss(model),
        functools.partial(_validation, dataset, model),
        None,
        functools.partial(build_detector, model, config.init_weights, start),
        functools.partial(save_detector, config=model),
        targets=targets,
        move_targets=moves,
        sheet=functools.partial(_sheet, targets, moves),
    )
    loop, result = train_model(dataset, task, config, directory, "detector")
    threshold = _threshold(dataset, model, loop.model)
    save_detector(
        directory / "model", loop.model, dataclasses.replace(model, score_threshold=threshold)
    )
    return {
        "verticals": list(verticals),
        "train_photographs": len(records),
        "train_garments": len(garments.photographs),
        "score_threshold": threshold,
        **result,
    }


def warn_of_single_garments(garments: int, photographs: int) -> None:
    """Warns if photographs most likely show garments that the manifest does not list.

    Args:
      garments: number of garments in the manifest.
      photographs: number of photographs with these garments, above 0.
    """
    each = garments / photographs
    if each < _FEW_GARMENTS:
        logging.warning(
            "%.2f garments per photograph: expected a row for every garment in a photograph; the "
            "detector learns that everything else is background",
            each,
        )


def make_detector_loss(model: DetectorConfig) -> WholeBatchLoss:
    """Returns the loss of (targets [batch, most * 5], outputs) over all replicas' images."""

    def loss(targets: tf.Tensor, raw: tf.Tensor) -> tf.Tensor:
        # Created here, because tensors cannot be shared between graphs.
        centres = cell_centres(model.image_size)
        rows = tf.reshape(targets, [tf.shape(targets)[0], -1, 5])
        return detection_loss(rows, *split_cells(tf.cast(raw, tf.float32), centres), centres)

    return WholeBatchLoss(loss, "detection")


def _targets(garments: Garments, count: int, verticals: Sequence[str]) -> np.ndarray:
    """Returns the targets, float32 [photographs, most * 5], as in `assign_cells`."""
    sizes = np.bincount(garments.photographs, minlength=count)
    targets = np.zeros([count, sizes.max(), 5], np.float32)
    targets[..., 0] = _NO_GARMENT
    # The garments of a photograph are consecutive.
    within = np.arange(len(garments.photographs)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    places = {vertical: place for place, vertical in enumerate(verticals)}
    kinds = np.array([places[vertical] for vertical in garments.verticals], np.float32)
    targets[garments.photographs, within] = np.column_stack([kinds, garments.boxes])
    return targets.reshape(count, -1)


def move_garments(augmenter: Augmenter, targets: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Returns the targets of augmented photographs.

    Args:
      augmenter: augmenter of the photographs.
      targets: float32 [batch, most * 5], rows of vertical and box.
      draws: float32 [batch, ...], random numbers of the augmentation.

    Returns:
      float32 of the same shape; garments that have mostly left the square become padding.
    """
    rows = tf.reshape(targets, [tf.shape(targets)[0], -1, 5])
    moved = augmenter.move_boxes(rows[..., 1:], draws)
    seen = tf.clip_by_value(moved, 0.0, 1.0)
    left = _areas(seen) >= _LEAST_LEFT * _areas(moved)
    kinds = tf.where(left, rows[..., 0], _NO_GARMENT)
    return tf.reshape(tf.concat([kinds[..., tf.newaxis], seen], axis=-1), tf.shape(targets))


def _areas(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)


def _val(dataset: PreparedDataset) -> tuple[np.ndarray, Garments]:
    """Returns the photographs to validate on, and their garments."""
    records = dataset.select(split="val")
    records = records[:: max(1, -(-len(records) // _MOST_VALIDATED))]
    return records, garments_of(dataset, records)


def _validation(
    dataset: PreparedDataset, model: DetectorConfig, cache_gib: float
) -> Validation | None:
    """Returns the validation by AP50 on split val, which also draws the detections."""
    records, truth = _val(dataset)
    known = np.isin(truth.verticals.astype(str), model.verticals)
    if not known.any():
        return None
    decoded = decoded_batches(dataset, records, model.image_size)
    fits = len(records) * model.image_size**2 * 3 <= cache_gib * 2**30
    batches = list(decoded) if fits else on_device(decoded)
    shown = np.concatenate(list(decoded_batches(dataset, records[:_MOST_SHOWN], model.image_size)))

    def measure(embedder: Embedder) -> float:
        raw = embedder(batches)
        found = found_garments(raw, model, answered=False)
        answers = found_garments(raw[: len(shown)], model, answered=True)
        sheet = draw_boxes(
            shown, boxes_to_draw(truth, answers.at_least(model.score_threshold), len(shown))
        )
        tf.summary.image("validation/boxes", sheet[np.newaxis])
        measured = average_precision(truth, found)
        for vertical, one in measured.by_vertical.items():
            tf.summary.scalar(f"validation/ap50/{vertical}", one.ap50)
        tf.summary.scalar("validation/ap", measured.ap)
        return measured.ap50

    return Validation(measure, metric=AP50)


def _threshold(dataset: PreparedDataset, model: DetectorConfig, trained: tf.keras.Model) -> float:
    """Returns the detector's score threshold, see `best_threshold`."""
    records, truth = _val(dataset)
    if not len(truth.photographs):
        logging.info("split val has no garments; using score threshold %g", model.score_threshold)
        return model.score_threshold
    raw = Embedder(trained)(on_device(decoded_batches(dataset, records, model.image_size)))
    return best_threshold(truth, found_garments(raw, model, answered=True))


def _sheet(
    targets: np.ndarray,
    moves: MoveTargets,
    dataset: PreparedDataset,
    records: np.ndarray,
    store: ImageStore,
    sampler: Sampler,
    augment: Augment,
) -> np.ndarray:
    """Draws the first augmented photographs of the first batch with their boxes."""
    positions, images, draws = first_images(store, sampler, augment, _MOST_SHOWN)
    moved = moves(tf.constant(targets[positions]), draws).numpy().reshape(len(images), -1, 5)
    return draw_boxes(images, [[Box(one[1:]) for one in rows if one[0] >= 0] for rows in moved])
