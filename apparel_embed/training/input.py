"""Training input: batches as a pure function of the step, read, augmented and prefetched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.data.augment import AugmentConfig, Augmenter
from apparel_embed.data.sampler import EpochSampler, PKSampler, WeightedSampler
from apparel_embed.inference.image_store import ImageStore

# Folded into the seed, so that augmentation does not share its random numbers with the sampler.
_AUGMENTATION = 7


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How training input is made.

    Attributes:
      augment: strength of augmentation.
      cache_gib: memory for decoded pictures in GiB; more pictures than fit are decoded anew
        every time they are seen.
    """

    augment: AugmentConfig = AugmentConfig()
    cache_gib: float = 4.0


def triplet_batches(
    store: ImageStore, sampler: PKSampler, config: InputConfig, steps: int
) -> Callable[[int], tf.data.Dataset]:
    """Returns, from a first step, a dataset of (images, item labels) up to `steps`.

    Images are float32 [P * K, size, size, 3] with values 0..255, labels int32 [P * K].
    """
    return _batches(store, sampler.batch, config.augment, sampler.seed, steps)


def target_batches(
    store: ImageStore,
    targets: np.ndarray,
    sampler: EpochSampler | WeightedSampler,
    config: InputConfig,
    steps: int,
) -> Callable[[int], tf.data.Dataset]:
    """Returns, from a first step, a dataset of (images, targets) up to `steps`.

    Images are float32 [batch, size, size, 3] with values 0..255, targets float32 [batch, dim];
    row i of `targets` belongs to position i of the store.
    """
    with tf.device("CPU"):
        table = tf.constant(targets, tf.float32)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions = sampler.batch(step)
        return positions, tf.gather(table, positions)

    return _batches(store, batch, config.augment, sampler.seed, steps)


def _batches(
    store: ImageStore,
    batch: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    augment_config: AugmentConfig,
    seed: int,
    steps: int,
) -> Callable[[int], tf.data.Dataset]:
    augment = Augmenter(augment_config)

    def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions, labels = batch(step)
        images = tf.cast(store.gather(positions), tf.float32)
        step_seed = tf.random.experimental.stateless_fold_in(
            tf.constant([seed, _AUGMENTATION], tf.int64), step
        )
        return augment(images, step_seed), labels

    def dataset(first: int) -> tf.data.Dataset:
        return (
            tf.data.Dataset.range(first, steps)
            .map(read, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    return dataset
