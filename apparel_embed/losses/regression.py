"""The student's losses: how far its embeddings are from its targets.

All are float32 scalars, whatever the dtype of their inputs: differences between near neighbours
do not survive 16 bits.
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
    """Returns the mean squared difference over images and dimensions, both inputs [batch, dim].

    For unit vectors it is `(2 - 2 cos) / dim`.
    """
    return tf.reduce_mean(tf.math.squared_difference(*_in_float32(embeddings, targets)))


def cosine_distance(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Returns the mean over images of 1 - cosine, 0 to 2, both inputs [batch, dim].

    For unit vectors it is the squared error times `dim / 2`: the same minimum, but gradients that
    do not shrink with the number of dimensions. A zero vector has cosine 0 to every vector.
    """
    return 1.0 + tf.reduce_mean(
        tf.keras.losses.cosine_similarity(*_in_float32(targets, embeddings), axis=-1)
    )


def smooth_l1(targets: tf.Tensor, embeddings: tf.Tensor) -> tf.Tensor:
    """Returns the mean Huber loss over images and dimensions, both inputs [batch, dim].

    Huber 1964, "Robust Estimation of a Location Parameter": `x^2 / 2` up to
    `delta = SMOOTH_L1_DELTA`, beyond it `delta (|x| - delta / 2)`. The gradient of a dimension is
    at most `delta`, so outlying targets pull less than with the squared error.
    """
    return tf.reduce_mean(
        tf.keras.losses.huber(*_in_float32(targets, embeddings), delta=SMOOTH_L1_DELTA)
    )


def standardising_scale(targets: np.ndarray) -> np.ndarray:
    """Returns factors that give all dimensions of targets the same standard deviation.

    A dimension with little variation among targets then counts as much as any other. The mean
    cancels in differences of vectors, so it is not subtracted.

    Args:
      targets: float [n, dim].

    Returns:
      float32 [dim]: the deviation over all dimensions (root of the mean variance) divided by that
      of each dimension. At most 10, so that near-constant dimensions are not blown up; all 1 if all
      targets are equal.
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
      scale: float32 [dim], factors applied to both targets and embeddings; None for 1.

    Raises:
      UserError: if the loss is unknown.
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
"""The losses by name, each a function from targets and embeddings [batch, dim] to a scalar."""
