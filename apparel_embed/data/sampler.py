"""Which records make the batch of a step: a pure function of seed and step.

So that a resumed training sees exactly the batches that one never interrupted would have seen.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from apparel_embed.errors import UserError


@dataclasses.dataclass(frozen=True)
class PKSampler:
    """P x K batches: P items, K pictures of each.

    Every epoch walks through all items in a new order; what is left of them at its end, fewer than
    P, waits for the next. An item with fewer than K pictures shows some of them more than once
    (augmented differently).

    Attributes:
      positions: int64 [items, most_pictures], positions of each item's pictures, padded with -1.
      items_per_batch: P.
      pictures_per_item: K.
      seed: any integer.
    """

    positions: np.ndarray
    items_per_batch: int
    pictures_per_item: int
    seed: int

    @classmethod
    def from_items(
        cls,
        items: np.ndarray,
        *,
        items_per_batch: int,
        pictures_per_item: int,
        seed: int,
        min_pictures: int = 2,
    ) -> PKSampler:
        """Makes a sampler.

        Args:
          items: [n] item of each picture.
          items_per_batch: P; where fewer items are usable, all of them make the batch.
          pictures_per_item: K, at least 2.
          seed: any integer.
          min_pictures: items with fewer pictures are left out. With 1, an item seen once still
            counts, its positives being augmentations of its one picture.

        Raises:
          UserError: if fewer than two items are usable: there would be no negatives.
        """
        _, codes, counts = np.unique(items, return_inverse=True, return_counts=True)
        order = np.argsort(codes, kind="stable")
        starts = np.cumsum(counts) - counts
        columns = np.arange(len(items)) - np.repeat(starts, counts)
        positions = np.full((len(counts), counts.max(initial=1)), -1, np.int64)
        positions[codes[order], columns] = order
        positions = positions[counts >= min_pictures]
        if len(positions) < 2:
            raise UserError(
                f"{len(positions)} of {len(counts)} items have {min_pictures} pictures or more; "
                "triplets need at least 2 such items"
            )
        return cls(positions, min(items_per_batch, len(positions)), pictures_per_item, seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that show every item once (but for less than a batch)."""
        return len(self.positions) // self.items_per_batch

    def batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the batch of a step; works in a graph.

        Args:
          step: int64 scalar, from 0.

        Returns:
          Positions of pictures int64 [P * K] and labels int32 [P * K] (row of the item).
        """
        epoch, offset = step // self.steps_per_epoch, step % self.steps_per_epoch
        items = tf.random.experimental.stateless_shuffle(
            tf.range(len(self.positions)), seed=[self.seed, epoch]
        )
        items = tf.cast(items, tf.int32)
        start = tf.cast(offset, tf.int32) * self.items_per_batch
        items = items[start : start + self.items_per_batch]
        rows = tf.gather(tf.constant(self.positions), items)
        present = rows >= 0
        keys = tf.random.stateless_uniform(tf.shape(rows), seed=[self.seed + 1, step])
        shuffled = tf.argsort(tf.where(present, keys, 2.0), axis=1)
        counts = tf.reduce_sum(tf.cast(present, tf.int32), axis=1, keepdims=True)
        columns = tf.gather(
            shuffled, tf.range(self.pictures_per_item)[tf.newaxis] % counts, batch_dims=1
        )
        pictures = tf.gather(rows, columns, batch_dims=1)
        labels = tf.repeat(items, self.pictures_per_item)
        size = self.items_per_batch * self.pictures_per_item
        return tf.ensure_shape(tf.reshape(pictures, [-1]), [size]), tf.ensure_shape(labels, [size])


@dataclasses.dataclass(frozen=True)
class EpochSampler:
    """Batches that walk through all pictures, in a new order every epoch.

    Attributes:
      count: number of pictures.
      batch_size: pictures a batch, at most `count`.
      seed: any integer.
    """

    count: int
    batch_size: int
    seed: int

    @classmethod
    def over(cls, count: int, *, batch_size: int, seed: int) -> EpochSampler:
        """Makes a sampler; a batch larger than the dataset shrinks to it.

        Raises:
          UserError: if there are no pictures.
        """
        if not count:
            raise UserError("there are no pictures to train on; at least 1 is needed")
        return cls(count, min(batch_size, count), seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that show every picture once (but for less than a batch)."""
        return self.count // self.batch_size

    def batch(self, step: tf.Tensor) -> tf.Tensor:
        """Returns positions int64 [batch_size] of the batch of a step; works in a graph."""
        epoch, offset = step // self.steps_per_epoch, step % self.steps_per_epoch
        order = tf.random.experimental.stateless_shuffle(
            tf.range(self.count, dtype=tf.int64), seed=[self.seed, epoch]
        )
        start = offset * self.batch_size
        return tf.ensure_shape(order[start : start + self.batch_size], [self.batch_size])
