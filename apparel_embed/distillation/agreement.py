"""The agreement of a student with its teachers, and a diagnosis of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.distillation.spaces import mean_cosine
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches

# The most images of a split that are embedded: a mean over more would hardly differ.
_MOST_IMAGES = 4096
# Below this cosine on its training images, a student underfits.
_LEARNT = 0.95
# A larger difference in cosine between training images and others is overfitting.
_GAP = 0.03


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Mean cosine between a student's embeddings and its teachers', and R@1 of both.

    Attributes:
      train: cosine on training images.
      augmented: cosine on augmented views of training images, as used in training.
      held_out: cosine on images of split val, which it has not seen; None if there are none.
      r_at_1: R@1 of the student on split val; None if no query has an answer.
      teachers_r_at_1: R@1 of its teachers there; None likewise.
      error: standard error of R@1.
    """

    train: float
    augmented: float
    held_out: float | None
    r_at_1: float | None = None
    teachers_r_at_1: float | None = None
    error: float = 0.0


def diagnose(agreement: Agreement, *, kept_step: int, trained_steps: int, interval: int) -> str:
    """Returns a phrase on what limits the student's agreement with its teachers.

    Args:
      agreement: agreement of the kept weights.
      kept_step: step of the kept weights, 0 for the initial ones.
      trained_steps: number of steps trained.
      interval: steps between validations.

    Examples:
      >>> diagnose(Agreement(0.99, 0.98, 0.93), kept_step=900, trained_steps=1000, interval=100)
      'too little data: cosine with its teachers is 0.99 on training images, but 0.93 on others'
    """
    if not kept_step:
        return "no step was better on split val than the initial model, which was kept"
    if agreement.train < _LEARNT:
        if trained_steps - kept_step < interval:
            return (
                f"too few steps: cosine with its teachers is only {agreement.train:.2f}, and was "
                "still improving at the end"
            )
        return (
            f"too small a model: cosine with its teachers is only {agreement.train:.2f} on "
            "training images, and has stopped improving"
        )
    if agreement.held_out is None:
        return "split val is empty: agreement on unseen images is unknown"
    if agreement.train - agreement.held_out > _GAP:
        return (
            f"too little data: cosine with its teachers is {agreement.train:.2f} on training "
            f"images, but {agreement.held_out:.2f} on others"
        )
    if agreement.r_at_1 is None or agreement.teachers_r_at_1 is None:
        return "split val has no answered query: R@1 against its teachers is unknown"
    found = (
        f"R@1 {agreement.r_at_1:.3f}, its teachers {agreement.teachers_r_at_1:.3f}, on split val"
    )
    if agreement.teachers_r_at_1 - agreement.r_at_1 > agreement.error:
        return f"it finds less than its teachers ({found}): more steps or a larger model would help"
    return f"it does not clearly find less than its teachers ({found}): better teachers would help"


def make_agreement(
    dataset: PreparedDataset, records: np.ndarray, targets: np.ndarray, image_size: int
) -> Callable[[Embedder], float | None]:
    """Returns a function that maps a student's embedder to its mean cosine with targets.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers, of which at most `_MOST_IMAGES`, evenly spread, are used.
      targets: float32 [n, dim], of unit length.
      image_size: side of the model's input, in pixels.

    Returns:
      The function, which returns None if there are no records.
    """
    # Records are often ordered by vertical.
    used = min(len(records), _MOST_IMAGES)
    some = np.arange(used) * len(records) // max(used, 1)
    expected = targets[some]
    batches = list(decoded_batches(dataset, records[some], image_size))
    return lambda embedder: mean_cosine(embedder(batches), expected) if batches else None


def augmented_agreement(
    model: tf.keras.Model,
    batches: tf.data.Dataset,
    augment: Callable[[tuple[tf.Tensor, tf.Tensor]], tf.Tensor],
) -> float:
    """Returns the mean cosine on augmented views.

    Args:
      model: maps the output of `augment` to embeddings.
      batches: batches of (inputs, targets).
      augment: maps a batch's inputs to images or features.
    """
    cosines = [
        mean_cosine(model(augment(inputs), training=False).numpy(), targets.numpy())
        for inputs, targets in batches
    ]
    return float(np.mean(cosines))
