"""The student's losses: how far its embeddings are from its targets, the specialists'.

All are float32 scalars, whatever the type of their inputs: what is left between near neighbours
does not survive 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.losses.config import COSINE, MSE, REGRESSION_LOSSES, SMOOTH_L1, SMOOTH_L1_DELTA
from apparel_embed.losses.keras import WholeBatchLoss

_LEAST_DEVIATION = 0.1


def mean_squared_error(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Mean over images and dimensions of the squared difference, of [batch, dim] both.

    For unit vectors it is `(2 - 2 cos) / dim`.
    """
    return tf.reduce_mean(tf.math.squared_difference(*_in_float32(embeddings, targets)))


def cosine_distance(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Mean over images of 1 - cosine, 0 to 2, of [batch, dim] both.

    For unit vectors it is the squared error times `dim / 2`: the same minimum, but gradients that
    do not shrink with the number of dimensions. A zero vector has the cosine 0 to all.
    """
    return 1.0 + tf.reduce_mean(
        tf.keras.losses.cosine_similarity(*_in_float32(targets, embeddings), axis=-1)
    )


def smooth_l1(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Mean over images and dimensions of Huber's function of the difference, of [batch, dim] both.

    Huber 1964, "Robust Estimation of a Location Parameter": `x^2 / 2` up to
    `delta = SMOOTH_L1_DELTA`, beyond it `delta (|x| - delta / 2)`. The gradient of a dimension is
    at most `delta`, so that a few targets far off pull less than by the squared error.
    """
    return tf.reduce_mean(
        tf.keras.losses.huber(*_in_float32(targets, embeddings), delta=SMOOTH_L1_DELTA)
    )


def standardising_scale(targets: np.ndarray) -> np.ndarray:
    """Returns factors that give all dimensions of targets the same standard deviation.

    A dimension along which targets hardly differ then counts as much as any other. A difference of
    two vectors does not see the mean, so nothing is taken off.

    Args:
      targets: float [n, dim].

    Returns:
      float32 [dim]: the deviation over all dimensions (root of the mean variance) divided by each
      one's. They are 10 at the most, so that a dimension that says nothing stays quiet, and all 1
      where no two targets differ.
    """
    deviations = targets.astype(np.float64).std(axis=0)
    usual = np.sqrt(np.mean(deviations**2))
    if usual == 0:
        return np.ones(targets.shape[1], np.float32)
    return (usual / np.maximum(deviations, _LEAST_DEVIATION * usual)).astype(np.float32)


def make_regression_loss(name: str, scale: np.ndarray | None = None) -> WholeBatchLoss:
    """Returns a loss of (targets, embeddings), both [batch, dim], over all replicas' images.

    Args:
      name: one of `REGRESSION_LOSSES`.
      scale: float32 [dim], by which each dimension of both is multiplied first; None for 1.

    Raises:
      UserError: if there is no such loss.
    """
    if name not in REGRESSION_LOSSES:
        raise UserError(f"--student_loss={name}: expected one of {', '.join(REGRESSION_LOSSES)}")
    loss = REGRESSION_FUNCTIONS[name]
    if scale is None:
        return WholeBatchLoss(loss, name)

    def scaled(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
        return loss(*(value * scale for value in _in_float32(targets, embeddings)))

    return WholeBatchLoss(scaled, name)


def _in_float32(*values: tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(value, tf.float32) for value in values]


REGRESSION_FUNCTIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    MSE: mean_squared_error,
    COSINE: cosine_distance,
    SMOOTH_L1: smooth_l1,
}
"""The losses by name, each a function of targets and embeddings [batch, dim] to a scalar."""
