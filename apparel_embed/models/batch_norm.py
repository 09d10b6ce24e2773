"""Batch norm that gives the same on one device and on several replicas."""

from __future__ import annotations

import tensorflow as tf


def set_momentum(model: tf.keras.Model, momentum: float) -> None:
    """Sets how moving statistics are kept, in every batch norm of a model.

    Args:
      model: in which batch norms are, at any depth.
      momentum: share of the old statistics kept each step.
    """
    for layer in _batch_norms(model):
        layer.momentum = momentum
        # TensorFlow's fused kernel keeps variances n / (n - 1) times as large as those it divides
        # by, Keras' synchronised batch norm does not. Of the two the latter can be had of both.
        layer._bessels_correction_test_only = False


def synchronise(model: tf.keras.Model) -> None:
    """Has every batch norm of a model normalise by the statistics of all replicas' pictures.

    As on one device with the whole batch; usually each replica takes its own part's. To be called
    in a strategy's scope, before the model is called for training.

    Args:
      model: in which batch norms are, at any depth.
    """
    for layer in _batch_norms(model):
        layer.synchronized = True
        # There is no fused kernel for it.
        layer.fused = False


def _batch_norms(model: tf.keras.Model) -> list[tf.keras.layers.BatchNormalization]:
    kind = tf.keras.layers.BatchNormalization
    return [layer for layer in model.submodules if isinstance(layer, kind)]
