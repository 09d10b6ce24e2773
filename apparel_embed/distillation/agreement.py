"""How well a student agrees with its teachers, and what that says of its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.distillation.spaces import mean_cosine
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches

# Images of a split that are asked about at the most: a mean over more would say the same.
_MOST_IMAGES = 4096
# Below this cosine on images it has learnt from, a student has not learnt what it was shown.
_LEARNT = 0.95
# A greater difference between images it has learnt from and others is overfitting.
_GAP = 0.03


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Mean cosine between a student's embeddings and its teachers', and what both find.

    Attributes:
      train: cosine on images it has learnt from.
      augmented: cosine on augmented views of them, as they were shown.
      held_out: cosine on images of split val, which it has not seen; None where there are none.
      r_at_1: what the student finds on split val; None where no query has an answer.
      teachers_r_at_1: what its teachers find there; None likewise.
      error: standard error of these.
    """

    train: float
    augmented: float
    held_out: float | None
    r_at_1: float | None = None
    teachers_r_at_1: float | None = None
    error: float = 0.0


def diagnose(agreement: Agreement, *, kept_step: int, trained_steps: int, interval: int) -> str:
    """Returns in words what keeps a student from its teachers.

    Args:
      agreement: of the kept weights.
      kept_step: step of the kept weights, 0 for those it started from.
      trained_steps: steps done.
      interval: steps between validations.

    Examples:
      >>> diagnose(Agreement(0.99, 0.98, 0.93), kept_step=900, trained_steps=1000, interval=100)
      'too little data: it agrees on images it has learnt from (0.99), less on others (0.93)'
    """
    if not kept_step:
        return "no step was better on split val than the model it started from, which was kept"
    if agreement.train < _LEARNT:
        if trained_steps - kept_step < interval:
            return (
                f"too few steps: it agrees with its teachers by {agreement.train:.2f} only, and "
                "was still getting better at the end"
            )
        return (
            f"too small a model: it agrees with its teachers by {agreement.train:.2f} only on "
            "images it has learnt from, and has stopped getting better"
        )
    if agreement.held_out is None:
        return "split val is empty: agreement on images it has not seen is unknown"
    if agreement.train - agreement.held_out > _GAP:
        return (
            f"too little data: it agrees on images it has learnt from ({agreement.train:.2f}), "
            f"less on others ({agreement.held_out:.2f})"
        )
    if agreement.r_at_1 is None or agreement.teachers_r_at_1 is None:
        return "split val answers no query: what it finds beside its teachers is unknown"
    found = (
        f"R@1 {agreement.r_at_1:.3f}, its teachers {agreement.teachers_r_at_1:.3f}, on split val"
    )
    if agreement.teachers_r_at_1 - agreement.r_at_1 > agreement.error:
        return (
            f"it finds less than its teachers ({found}): more steps would help, or a larger model"
        )
    return f"it does not clearly find less than its teachers ({found}): better teachers would help"


def make_agreement(
    dataset: PreparedDataset, records: np.ndarray, targets: np.ndarray, image_size: int
) -> Callable[[Embedder], float | None]:
    """Returns a function from a student's embedder to its mean cosine with targets.

    Args:
      dataset: a prepared dataset.
      records: int64 [n] record numbers, of which the first `_MOST_IMAGES` are looked at.
      targets: float32 [n, dim], of unit length.
      image_size: side of the model's input, in pixels.

    Returns:
      The function, which finds None where there are no records.
    """
    expected = targets[:_MOST_IMAGES]
    batches = list(decoded_batches(dataset, records[:_MOST_IMAGES], image_size))
    return lambda embedder: mean_cosine(embedder(batches), expected) if batches else None


def augmented_agreement(
    model: tf.keras.Model,
    batches: tf.data.Dataset,
    augment: Callable[[tuple[tf.Tensor, tf.Tensor]], tf.Tensor],
) -> float:
    """Returns the mean cosine on augmented views.

    Args:
      model: from what `augment` returns to embeddings.
      batches: of (inputs, targets).
      augment: from a batch's inputs to images, or features.
    """
    cosines = [
        mean_cosine(model(augment(inputs), training=False).numpy(), targets.numpy())
        for inputs, targets in batches
    ]
    return float(np.mean(cosines))
