"""Where training runs, and with which random numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from apparel_embed.errors import UserError

STRATEGIES = ("auto", "one", "mirrored")


@dataclasses.dataclass(frozen=True)
class BatchShare:
    """The replicas that one process feeds, out of all between which a batch is divided.

    Attributes:
      first: number of the process's first replica, from 0.
      replicas: number of the process's replicas.
      of: number of all replicas.
    """

    first: int = 0
    replicas: int = 1
    of: int = 1

    def check(self, batch_size: int) -> None:
        """Raises a UserError if some replica would have no picture of a batch."""
        if batch_size < self.of:
            raise UserError(
                f"a batch of {batch_size} pictures cannot be divided between {self.of} replicas; "
                "each needs at least 1"
            )

    def part(self, batch_size: int, replica: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns what takes a replica's part out of something [batch_size, ...].

        Parts follow each other and differ in length by one at most.

        Args:
          batch_size: pictures of the whole batch.
          replica: int64, number of the replica among the process's own.
        """
        if self.of == 1:
            return tf.identity
        begin = batch_size * (self.first + replica) // self.of
        end = batch_size * (self.first + replica + 1) // self.of

        def take(values: tf.Tensor) -> tf.Tensor:
            own = values[begin:end]
            if batch_size % self.of == 0:
                own = tf.ensure_shape(own, [batch_size // self.of, *values.shape[1:]])
            return own

        return take


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


def batch_share(strategy: tf.distribute.Strategy) -> BatchShare:
    """Returns the replicas that this process feeds."""
    replicas = strategy.num_replicas_in_sync
    return BatchShare(0, replicas, replicas)


def start_afresh(seed: int) -> None:
    """Forgets earlier models and seeds everything, so that a training depends on its seed alone."""
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
