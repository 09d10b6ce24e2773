"""Triplet batches for Keras's own `model.fit`."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import PKSampler
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.training.input import InputConfig, augmentation, triplet_batches


def triplet_dataset(
    dataset: PreparedDataset,
    *,
    image_size: int,
    steps: int,
    verticals: Sequence[str] | None = None,
    split: str = "train",
    items_per_batch: int = 16,
    pictures_per_item: int = 4,
    min_pictures: int = 2,
    seed: int = 0,
    config: InputConfig = InputConfig(),
) -> tf.data.Dataset:
    """Returns P x K batches of augmented pictures and their items, for `model.fit`.

    The batch of a step is that of `tools/train_specialist.py` with the same settings: a pure
    function of seed and step.

    Args:
      dataset: a prepared dataset.
      image_size: side of the square that pictures are fitted into, in pixels, 1 or more.
      steps: number of batches, 1 or more. With `steps_per_epoch` `model.fit` goes on in every epoch
        where the one before ended.
      verticals: those to take, or None for all.
      split: "train", "val" or "test".
      items_per_batch: P, 2 or more; where fewer items are usable, all of them make the batch.
      pictures_per_item: K, 2 or more.
      min_pictures: items with fewer pictures are left out.
      seed: of batches and augmentation, any integer.
      config: how pictures are augmented, and how much memory they may take.

    Returns:
      A dataset of (images float32 [P * K, image_size, image_size, 3] with values 0..255, labels
      int32 [P * K]), `steps` elements long.

    Raises:
      UserError: an unknown split or vertical, a number out of range, or fewer than two usable
        items.

    Example:
      >>> from apparel_embed import load_prepared
      >>> batches = triplet_dataset(
      ...     load_prepared("data/prepared"), image_size=32, steps=2, items_per_batch=4
      ... )
      >>> [images.shape for images, labels in batches]
      [TensorShape([16, 32, 32, 3]), TensorShape([16, 32, 32, 3])]
    """
    for name, value, least in (
        ("image_size", image_size, 1),
        ("steps", steps, 1),
        ("items_per_batch", items_per_batch, 2),
        ("pictures_per_item", pictures_per_item, 2),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; allowed is {least} or more")
    records = dataset.select(split=split, verticals=verticals)
    sampler = PKSampler.from_items(
        dataset.codes("item_id")[0][records],
        items_per_batch=items_per_batch,
        pictures_per_item=pictures_per_item,
        min_pictures=min_pictures,
        seed=seed,
    )
    store = ImageStore(dataset, records, image_size, config.cache_gib)
    augment = augmentation(config, tf.distribute.get_strategy())
    batches = triplet_batches(store, sampler, steps)(0)
    return batches.map(lambda inputs, labels: (augment(inputs), labels))
