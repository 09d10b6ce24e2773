"""Where training runs, and with which random numbers."""

from __future__ import annotations

import functools

import tensorflow as tf

STRATEGIES = ("auto", "one", "mirrored")


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy:
    """Returns a distribution strategy, the same one for all of a process's trainings.

    TensorFlow tells collective operations apart by numbers that each strategy counts anew: those of
    a second one, of other shapes, would be taken for the first one's and fail.

    Args:
      name: "one" for the default device; "mirrored" for all GPUs (all logical CPU devices where
        there is no GPU); "auto" for mirrored if there is more than one GPU, else one.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def start_afresh(seed: int) -> None:
    """Forgets earlier models and seeds everything, so that a training depends on its seed alone."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
