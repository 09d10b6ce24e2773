"""Triplet losses. The only module that knows TensorFlow Addons, whose life has ended."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # It warns of its end of life on every import; that it stands in this one module is our answer.
    warnings.simplefilter("ignore")
    import tensorflow_addons as tfa


def triplet_semihard_loss(margin: float) -> tfa.losses.TripletSemiHardLoss:
    """Returns TFA's semi-hard triplet loss over unit embeddings and Euclidean distance.

    For every ordered positive pair (a, p): the negative with the smallest d(a, n) > d(a, p), else
    the farthest negative; mean of max(0, margin + d(a, p) - d(a, n)) over the pairs (Schroff et
    al. 2015, "FaceNet").

    Args:
      margin: above 0; distances between unit vectors lie in 0..2.

    Returns:
      A Keras loss of (item labels int [batch], embeddings float32 [batch, dim]).
    """
    return tfa.losses.TripletSemiHardLoss(margin=margin, distance_metric="L2")
