"""Training input: batches as a pure function of the step, read, decoded and prefetched.

Pictures are augmented where they are trained on, so that they travel as bytes and not as floats;
the random numbers that say how come with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.augment import AugmentConfig, Augmenter
from apparel_embed.data.sampler import EpochSampler, PKSampler, WeightedSampler
from apparel_embed.inference.image_store import ImageStore, decoding_threads
from apparel_embed.training.frozen_views import FrozenViews
from apparel_embed.training.strategy import BatchShare

# Folded into the seed, so that augmentation does not share its random numbers with the sampler.
_AUGMENTATION = 7
# Batches that are ready and wait for their step.
_READY = 2

Batches = Callable[[int], tf.data.Dataset]
"""From a first step to a dataset of ((images, draws), labels or targets) up to the last step: of
each step one element for each replica of this process, the replica's part of the batch."""


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How training input is made.

    Attributes:
      augment: strength of augmentation.
    """

    augment: AugmentConfig = AugmentConfig()
    cache_gib: float = setting(
        4.0,
        "memory for training pictures in GiB: decoded ones, or where these do not fit encoded "
        "ones, which are decoded each time; what fits neither way is read each time, too",
        0.0,
        seldom=True,
    )
    views: int = setting(
        16,
        "augmented views of each image that are put through a backbone that is not trained, once "
        "for all trainings; 0 to augment anew in every step",
        0,
        1024,
        flag="frozen_views",
        seldom=True,
    )


def augmentation(
    config: InputConfig, strategy: tf.distribute.Strategy
) -> Callable[[tuple[tf.Tensor, tf.Tensor]], tf.Tensor]:
    """Returns what makes images float32 [batch, size, size, 3] out of a batch's inputs.

    Args:
      config: how training input is made.
      strategy: on whose replicas it is to work.

    Raises:
      UserError: if it cannot work there.
    """
    if config.augment.rotation and isinstance(strategy, tf.distribute.TPUStrategy):
        raise UserError(
            f"--augment_rotation={config.augment.rotation:g} with --strategy=tpu: allowed is 0, as "
            "TensorFlow turns no pictures on a TPU"
        )
    augmenter = Augmenter(config.augment)
    return lambda inputs: augmenter.apply(*inputs)


def triplet_batches(
    store: ImageStore | FrozenViews,
    sampler: PKSampler,
    steps: int,
    share: BatchShare = BatchShare(),
) -> Batches:
    """Returns batches of ((images, draws), item labels).

    Args:
      store: the pictures.
      sampler: which of them make the batch of a step.
      steps: number of steps in all.
      share: the replicas of this process.

    Returns:
      Batches, from a first step. Of a replica, images are uint8 [part of P * K, size, size, 3],
      draws float32 [part of P * K, ...] as `Augmenter` takes them, labels int32 [part of P * K].
    """
    return _batches(store, sampler, sampler.batch_of, steps, share)


def target_batches(
    store: ImageStore | FrozenViews,
    targets: np.ndarray,
    sampler: EpochSampler | WeightedSampler,
    steps: int,
    share: BatchShare = BatchShare(),
) -> Batches:
    """Returns batches of ((images, draws), targets).

    Args:
      store: the pictures.
      targets: float32 [n, dim], row i belongs to position i of the store.
      sampler: which pictures make the batch of a step.
      steps: number of steps in all.
      share: the replicas of this process.

    Returns:
      Batches, from a first step: as of `triplet_batches`, but for targets float32 [part of batch,
      dim] in place of labels.
    """
    with tf.device("CPU"):
        # A variable, as the pictures of the store are.
        table = tf.Variable(targets, trainable=False, dtype=tf.float32)

    def batch_of(order: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions = sampler.batch_of(order, step)
        return positions, tf.gather(table, positions)

    return _batches(store, sampler, batch_of, steps, share)


def first_pictures(
    store: ImageStore,
    sampler: PKSampler | EpochSampler | WeightedSampler,
    augment: Callable[[tuple[tf.Tensor, tf.Tensor]], tf.Tensor],
    most: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures of the first step's batch as they are trained on.

    Args:
      store: the pictures.
      sampler: which of them make the batch of a step.
      augment: from `augmentation`.
      most: how many of the batch, its first, at the most.

    Returns:
      Positions in the store int64 [n], and images float32 [n, size, size, 3], values 0..255.
    """
    step = tf.constant(0, tf.int64)
    found = sampler.batch(step)
    positions = (found[0] if isinstance(found, tuple) else found)[:most]
    return positions.numpy(), augment(
        (store.gather(positions), _draws(sampler, step)[:most])
    ).numpy()


def _draws(sampler: PKSampler | EpochSampler | WeightedSampler, step: tf.Tensor) -> tf.Tensor:
    """Returns the random numbers that a step's batch is augmented by, a row for each picture."""
    seed = tf.random.experimental.stateless_fold_in(
        tf.constant([sampler.seed, _AUGMENTATION], tf.int64), step
    )
    return Augmenter.draw(seed, sampler.batch_size)


def _batches(
    store: ImageStore | FrozenViews,
    sampler: PKSampler | EpochSampler | WeightedSampler,
    batch_of: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    steps: int,
    share: BatchShare,
) -> Batches:
    share.check(sampler.batch_size)
    epoch_steps = sampler.steps_per_epoch

    def read(order: tf.Tensor, part: tf.Tensor) -> tuple:
        """Reads part number `part`, counted over the steps and the replicas of this process."""
        step = part // share.replicas
        own = share.part(sampler.batch_size, part % share.replicas)
        positions, labels = batch_of(order, step)
        # Drawn for all, so that it makes no difference to a picture where it is augmented.
        draws = _draws(sampler, step)
        return (store.read(own(positions)), own(draws)), own(labels)

    def decode(inputs: tuple, labels: tf.Tensor) -> tuple:
        kept, draws = inputs
        return (store.decode(kept), draws), labels

    def dataset(first: int) -> tf.data.Dataset:
        def parts_of(epoch: tf.Tensor) -> tf.data.Dataset:
            # Once an epoch: to order a million pictures takes as long as many steps.
            order = sampler.epoch_order(epoch)
            begin = tf.maximum(epoch * epoch_steps, first)
            end = tf.minimum((epoch + 1) * epoch_steps, steps)
            parts = tf.data.Dataset.range(begin * share.replicas, end * share.replicas)
            return parts.map(lambda part: read(order, part), num_parallel_calls=threads)

        threads = decoding_threads()
        return (
            tf.data.Dataset.range(first // epoch_steps, -(-steps // epoch_steps))
            .flat_map(parts_of)
            .map(decode, num_parallel_calls=threads)
            .prefetch(_READY * share.replicas)
        )

    return dataset
