"""TensorFlow Addons' own losses. The only module that knows it, whose life has ended."""

from __future__ import annotations

import warnings

import tensorflow as tf

with warnings.catch_warnings():
    # It warns of its end of life on every import; that it stands in this one module is our answer.
    warnings.simplefilter("ignore")
    import tensorflow_addons as tfa


def addons_semi_hard_triplet_loss(
    labels: tf.Tensor, embeddings: tf.Tensor, margin: float, distance_metric: str
) -> tf.Tensor:
    """Returns TFA's semi-hard triplet loss, to compare with.

    Holds a matrix of batch * batch * batch numbers, and is NaN for a batch without positives.

    Args:
      labels: int [batch], item of each image.
      embeddings: float [batch, dim].
      margin: by how much a negative should be farther than a positive.
      distance_metric: "L2", "squared-L2" or "angular".

    Returns:
      Scalar of the type of the embeddings.
    """
    return tfa.losses.triplet_semihard_loss(labels, embeddings, margin, distance_metric)
