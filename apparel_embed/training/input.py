"""Training input: batches as a pure function of the step, read, decoded and prefetched.

Images are augmented on the training device, so they travel as bytes instead of floats. The random
numbers for augmentation travel with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Union

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.augment import Augmenter
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler, PKSampler, WeightedSampler
from apparel_embed.inference.image_store import ImageStore, decoding_threads
from apparel_embed.training.frozen_views import FrozenViews
from apparel_embed.training.settings import InputConfig
from apparel_embed.training.strategy import BatchShare

# Folded into the seed, to share no random numbers with the sampler.
_AUGMENTATION = 7
# Number of prefetched batches.
_READY = 2

Batches = Callable[[int], tf.data.Dataset]
"""Maps a first step to a dataset of ((images, draws), labels or targets) up to the last step. Each
step has one element for each replica of this process, with the replica's part of the batch."""
Augment = Callable[[tuple[tf.Tensor, tf.Tensor]], tf.Tensor]
"""Maps a batch's (images, draws) to the input of a model."""
MoveTargets = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""Maps targets [batch, dim] and draws to the targets of the augmented images."""
Sampler = Union[PKSampler, EpochSampler, WeightedSampler]
"""Chooses the images of each step's batch; `PKSampler` also returns their labels."""


def augmentation(config: InputConfig, strategy: tf.distribute.Strategy) -> Augment:
    """Returns a function from a batch's inputs to images float32 [batch, size, size, 3].

    Args:
      config: augmentation of training images.
      strategy: the strategy on whose replicas the function runs.

    Raises:
      UserError: if the strategy does not support an augmentation.
    """
    if config.augment.rotation and isinstance(strategy, tf.distribute.TPUStrategy):
        raise UserError(
            f"--augment_rotation={config.augment.rotation:g} with --strategy=tpu: expected 0, as "
            "TensorFlow cannot rotate images on a TPU"
        )
    augmenter = Augmenter(config.augment)
    return lambda inputs: augmenter.apply(*inputs)


def training_batches(
    store: ImageStore | FrozenViews,
    sampler: Sampler,
    steps: int,
    share: BatchShare = BatchShare(),
    targets: np.ndarray | None = None,
    move_targets: MoveTargets | None = None,
) -> Batches:
    """Returns batches of ((images, draws), item labels or targets).

    Args:
      store: the images.
      sampler: chooses the images of each step's batch; must be a `PKSampler` without targets.
      steps: total number of steps.
      share: the replicas of this process.
      targets: float32 [n, dim], row i belongs to position i of the store; None for labels.
      move_targets: maps targets and draws to targets of augmented images; None if they are equal.

    Returns:
      Batches. A replica's images are uint8 [part of batch, size, size, 3], its draws float32
      [part of batch, ...] as `Augmenter` takes them, its labels int32 [part of batch] or targets
      float32 [part of batch, dim].

    Raises:
      UserError: if a batch has fewer images than there are replicas.
    """
    share.check(sampler.batch_size)
    epoch_steps, threads = sampler.steps_per_epoch, decoding_threads()
    with tf.device("CPU"):
        # A variable, like the images of the store, to keep it out of graphs.
        table = None if targets is None else tf.Variable(targets, False, dtype=tf.float32)

    def read(order: tf.Tensor, part: tf.Tensor) -> tuple:
        """Reads part number `part`, counted over the steps and the replicas of this process."""
        step = part // share.replicas
        own = share.part(sampler.batch_size, part % share.replicas)
        found = sampler.batch_of(order, step)
        positions, labels = found if table is None else (found, tf.gather(table, found))
        # Drawn for the whole batch: an image gets the same numbers on any replica.
        draws = _draws(sampler, step)
        if move_targets is not None:
            labels = move_targets(labels, draws)
        return (store.read(own(positions)), own(draws)), own(labels)

    def decode(inputs: tuple, labels: tf.Tensor) -> tuple:
        return (store.decode(inputs[0]), inputs[1]), labels

    def dataset(first: int) -> tf.data.Dataset:
        def parts_of(epoch: tf.Tensor) -> tf.data.Dataset:
            # Once per epoch: ordering a million images takes as long as many steps.
            order = sampler.epoch_order(epoch)
            begin = tf.maximum(epoch * epoch_steps, first)
            end = tf.minimum((epoch + 1) * epoch_steps, steps)
            parts = tf.data.Dataset.range(begin * share.replicas, end * share.replicas)
            return parts.map(lambda part: read(order, part), num_parallel_calls=threads)

        return (
            tf.data.Dataset.range(first // epoch_steps, -(-steps // epoch_steps))
            .flat_map(parts_of)
            .map(decode, num_parallel_calls=threads)
            .prefetch(_READY * share.replicas)
        )

    return dataset


def first_images(
    store: ImageStore, sampler: Sampler, augment: Augment, most: int
) -> tuple[np.ndarray, np.ndarray, tf.Tensor]:
    """Returns the first augmented images of the first step's batch.

    Returns:
      Positions in the store int64 [n], images float32 [n, size, size, 3], values 0..255, and the
      random numbers of their augmentation float32 [n, ...]; n is at most `most`.
    """
    step = tf.constant(0, tf.int64)
    found = sampler.batch(step)
    positions = (found[0] if isinstance(found, tuple) else found)[:most]
    draws = _draws(sampler, step)[:most]
    return positions.numpy(), augment((store.gather(positions), draws)).numpy(), draws


def _draws(sampler: Sampler, step: tf.Tensor) -> tf.Tensor:
    """Returns the random numbers for augmenting a step's batch, a row for each image."""
    seed = tf.random.experimental.stateless_fold_in(
        tf.constant([sampler.seed, _AUGMENTATION], tf.int64), step
    )
    return Augmenter.draw(seed, sampler.batch_size)


def triplet_dataset(
    dataset: PreparedDataset,
    *,
    image_size: int,
    steps: int,
    verticals: Sequence[str] | None = None,
    split: str = "train",
    items_per_batch: int = 16,
    images_per_item: int = 4,
    min_images: int = 2,
    seed: int = 0,
    config: InputConfig = InputConfig(),
) -> tf.data.Dataset:
    """Returns P x K batches of augmented images and their items, for `model.fit`.

    The batches are those of `tools/train_specialist.py` with the same settings.

    Args:
      dataset: a prepared dataset.
      image_size: side of the square that images are fitted into, in pixels.
      steps: number of batches. With `steps_per_epoch`, each epoch of `model.fit` continues where
        the previous one ended.
      verticals: verticals to use, or None for all.
      split: "train", "val" or "test".
      items_per_batch: P; if fewer items are usable, a batch contains all of them.
      images_per_item: K.
      min_images: items with fewer images are skipped.
      seed: seed of batches and augmentation, any integer.
      config: augmentation, and memory for images.

    Returns:
      A dataset of (images float32 [P * K, image_size, image_size, 3] with values 0..255, labels
      int32 [P * K]), `steps` elements long.

    Raises:
      UserError: if split or vertical is unknown, a number is out of range, or fewer than two items
        are usable.

    Examples:
      >>> from apparel_embed import load_prepared
      >>> batches = triplet_dataset(
      ...     load_prepared("data/prepared"), image_size=32, steps=2, items_per_batch=4
      ... )
      >>> [images.shape for images, labels in batches]
      [TensorShape([16, 32, 32, 3]), TensorShape([16, 32, 32, 3])]
    """
    sizes = {"items_per_batch": items_per_batch, "images_per_item": images_per_item}
    for name, value in {"image_size": image_size, "steps": steps, **sizes}.items():
        least = 2 if name in sizes else 1
        if value < least:
            raise UserError(f"{name} is {value}; expected {least} or more")
    records = dataset.select(split=split, verticals=verticals)
    sampler = PKSampler.from_items(
        dataset.codes("item_id")[0][records], min_images=min_images, seed=seed, **sizes
    )
    store = ImageStore(dataset, records, image_size, config.cache_gib)
    augment = augmentation(config, tf.distribute.get_strategy())
    batches = training_batches(store, sampler, steps)(0)
    return batches.map(lambda inputs, labels: (augment(inputs), labels))
