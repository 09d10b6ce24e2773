"""Distribution strategies.

Each replica of a strategy takes a part of every batch. Together they give the results of one device
with the whole batch: losses gather the parts (`losses.replicas.gather_replicas`), batch norm uses
the statistics of all parts, and random numbers are drawn for the whole batch and divided with it.
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
    """The replicas that one process feeds, out of all that share a batch.

    Attributes:
      first: index of the process's first replica, from 0.
      replicas: number of the process's replicas.
      of: total number of replicas.
    """

    first: int = 0
    replicas: int = 1
    of: int = 1

    def check(self, batch_size: int) -> None:
        """Raises a UserError if a replica would have no image of a batch."""
        if batch_size < self.of:
            raise UserError(
                f"a batch of {batch_size} images cannot be divided between {self.of} replicas; "
                "each needs at least 1"
            )

    def part(self, batch_size: int, replica: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
        """Returns a function that takes a replica's part of a tensor [batch_size, ...].

        Parts are consecutive, and their lengths differ by at most one.

        Args:
          batch_size: number of images in the whole batch.
          replica: int64, index of the replica among the process's own.
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

    TensorFlow identifies collective operations by numbers that each strategy counts from 0. Those
    of a second strategy would be mistaken for the first one's and fail. Also, several processes
    must connect before TensorFlow does anything else, so binaries call this first.

    Args:
      name: one of `STRATEGIES`, see --strategy; without a GPU, "mirrored" uses all logical CPU
        devices.

    Raises:
      UserError: if TF_CONFIG does not define a cluster, or no TPU is found.
    """
    named = cluster.read_cluster() if name in ("auto", "multi_worker") else None
    if name == "multi_worker" and named is None:
        raise UserError(
            f"--strategy=multi_worker: expected {cluster.VARIABLE} to list the processes, but it "
            "is not set; tools/launch_local.py sets it"
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
    # Never tested on a TPU.
    address = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        reason = one_line(error)
        raise UserError(
            f"--strategy=tpu: no TPU at {address!r} ({reason[:200]}); set TPU_NAME to its name"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def batch_share(strategy: tf.distribute.Strategy) -> BatchShare:
    """Returns the replicas that this process feeds: its own if there are several processes."""
    replicas = strategy.num_replicas_in_sync
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    named = cluster.read_cluster() if several else None
    if named is None:
        return BatchShare(0, replicas, replicas)
    # All processes have the same number of replicas.
    own = replicas // len(named.workers)
    return BatchShare(named.index * own, own, replicas)


@contextlib.contextmanager
def lost_process_as_user_error(strategy: tf.distribute.Strategy, what: str) -> Iterator[None]:
    """Raises a UserError instead of TensorFlow's error if another process of the training ends.

    Noticing the end takes up to a minute.

    Args:
      strategy: from `make_strategy`.
      what: name of the training, for the message.

    Raises:
      UserError: if another of the strategy's processes has ended or cannot be reached.
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
            f"{what}: another process of this training ended or cannot be reached; restart all "
            f"with the same command to resume from the last checkpoint ({reason[:200]})"
        ) from error
