"""Where training runs.

A strategy's replicas each take a part of every batch, and give together what one device gives with
the whole: the losses gather the parts (`losses.replicas.gather_replicas`), batch norm takes the
statistics of all, and random numbers are drawn for the whole batch and divided like it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator

import tensorflow as tf

from apparel_embed.common import cluster
from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line


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
        """Raises a UserError if some replica would have no image of a batch."""
        if batch_size < self.of:
            raise UserError(
                f"a batch of {batch_size} images cannot be divided between {self.of} replicas; "
                "each needs at least 1"
            )

    def part(self, batch_size: int, replica: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns what takes a replica's part out of something [batch_size, ...].

        Parts follow each other and differ in length by one at most.

        Args:
          batch_size: images of the whole batch.
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

    TensorFlow tells collective operations apart by numbers that each strategy counts from 0: those
    of a second one, of other shapes, would be taken for the first one's and fail. Also, several
    processes must have met before TensorFlow does anything else: binaries call this first.

    Args:
      name: one of `STRATEGIES`, see --strategy; "mirrored" takes all logical CPU devices where
        there is no GPU.

    Raises:
      UserError: if TF_CONFIG names no cluster, or there is no TPU.
    """
    named = cluster.read_cluster() if name in ("auto", "multi_worker") else None
    if name == "multi_worker" and named is None:
        raise UserError(
            f"--strategy=multi_worker: {cluster.VARIABLE} is not set, which lists the processes; "
            "tools/launch_local.py sets it"
        )
    if name == "multi_worker" or (named is not None and len(named.workers) > 1):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if name == "tpu":
        return _tpu_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def _tpu_strategy() -> tf.distribute.Strategy:
    # Not tried on a TPU: there was none.
    address = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = one_line(error)
        raise UserError(
            f"--strategy=tpu: there is no TPU at {address!r} ({reason[:200]}); TPU_NAME names it"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def batch_share(strategy: tf.distribute.Strategy) -> BatchShare:
    """Returns the replicas that this process feeds: of several processes its own, else all."""
    replicas = strategy.num_replicas_in_sync
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    named = cluster.read_cluster() if several else None
    if named is None:
        return BatchShare(0, replicas, replicas)
    # Processes have equally many.
    own = replicas // len(named.workers)
    return BatchShare(named.index * own, own, replicas)


@contextlib.contextmanager
def lost_process_as_user_error(strategy: tf.distribute.Strategy, what: str) -> Iterator[None]:
    """Turns what TensorFlow raises when a process that trains with this one ends into one line.

    It takes up to a minute until the others know.

    Args:
      strategy: from `make_strategy`.
      what: name of the training, for the message.

    Raises:
      UserError: another of the strategy's processes has ended or cannot be reached.
    """
    lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
    try:
        yield
    except lost as error:
        if strategy.cluster_resolver is None:
            raise
        _, _, reason = one_line(error.message).rpartition("aborted by: ")
        reason, _, _ = reason.partition(" Additional GRPC")
        raise UserError(
            f"{what}: another process of this training ended or cannot be reached; start all again "
            f"with the same command to resume from the last checkpoint ({reason[:200]})"
        ) from error
