"""Samplers: the batch of a step is a pure function of seed and step.

So a resumed training sees exactly the batches that an uninterrupted one would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.columns import ranked_codes_of
from apparel_embed.data.config import VERTICAL_WEIGHTS


@dataclasses.dataclass(frozen=True)
class PKSampler:
    """P x K batches: P items with K images each.

    A batch is positions of images, int64 [P * K], and labels, int32 [P * K] (row of the item).
    Every epoch goes through all items in a new order and drops the remainder of fewer than P items.
    An item with fewer than K images repeats some of them (augmented differently).

    Attributes:
      positions: int64 [n], positions of the images, grouped by item.
      starts: int64 [items], start of each item's images in `positions`.
      counts: int64 [items], number of images of each item, at least 1.
      items_per_batch: P.
      images_per_item: K.
      seed: any integer.
    """

    positions: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    items_per_batch: int
    images_per_item: int
    seed: int

    @classmethod
    def from_items(
        cls,
        items: np.ndarray,
        *,
        items_per_batch: int,
        images_per_item: int,
        seed: int,
        min_images: int = 2,
    ) -> PKSampler:
        """Creates a sampler.

        Args:
          items: [n], item of each image, texts or numbers.
          items_per_batch: P; if fewer items are usable, a batch contains all of them.
          images_per_item: K, at least 2.
          seed: any integer.
          min_images: items with fewer images are excluded. With 1, items with a single image are
            used: their positives are augmentations of that image.

        Raises:
          UserError: if fewer than two items are usable: there would be no negatives.
        """
        order, counts = _grouped(items)
        starts = np.cumsum(counts) - counts
        usable = np.flatnonzero(counts >= min_images)
        if len(usable) < 2:
            raise UserError(
                f"{len(usable)} of {len(counts)} items have {min_images} images or more; "
                "triplets need at least 2 such items"
            )
        items_per_batch = min(items_per_batch, len(usable))
        starts, counts = starts[usable], counts[usable]
        return cls(order, starts, counts, items_per_batch, images_per_item, seed)

    @property
    def item_count(self) -> int:
        """Number of usable items."""
        return len(self.counts)

    @property
    def batch_size(self) -> int:
        """P * K, the number of images per batch."""
        return self.items_per_batch * self.images_per_item

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that show every item once, except a remainder of less than P items."""
        return self.item_count // self.items_per_batch

    def batch(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the batch of a step, an int64 scalar from 0; works in a graph."""
        return self.batch_of(self.epoch_order(step // self.steps_per_epoch), step)

    def epoch_order(self, epoch: tf.Tensor) -> tf.Tensor:
        """Returns all items in the order of an epoch, int32; slow if there are many."""
        return _shuffled(tf.range(self.item_count), self.seed, epoch)

    def batch_of(self, order: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the same as `batch`, given the order of the step's epoch."""
        items = _slice(order, step % self.steps_per_epoch, self.items_per_batch)
        all_positions, all_starts, all_counts = _tensors(self.positions, self.starts, self.counts)
        starts = tf.gather(all_starts, items)[:, tf.newaxis]
        counts = tf.gather(all_counts, items)[:, tf.newaxis]
        # As many columns as the largest of all items has images: otherwise the random numbers would
        # depend on the items of the batch.
        most = int(self.counts.max())
        keys = tf.random.stateless_uniform((self.items_per_batch, most), seed=[self.seed + 1, step])
        present = tf.range(most, dtype=tf.int64)[tf.newaxis] < counts
        shuffled = tf.argsort(tf.where(present, keys, 2.0), axis=1)
        turns = tf.range(self.images_per_item, dtype=tf.int64)[tf.newaxis] % counts
        columns = tf.gather(shuffled, turns, batch_dims=1)
        images = tf.gather(all_positions, starts + tf.cast(columns, tf.int64))
        labels = tf.repeat(items, self.images_per_item)
        size = [self.batch_size]
        return tf.ensure_shape(tf.reshape(images, [-1]), size), tf.ensure_shape(labels, size)


@dataclasses.dataclass(frozen=True)
class EpochSampler:
    """Batches that go through all images, in a new order every epoch.

    A batch is positions int64 [batch_size].

    Attributes:
      count: number of images.
      batch_size: images per batch, at most `count`.
      seed: any integer.
    """

    count: int
    batch_size: int
    seed: int

    @classmethod
    def over(cls, count: int, *, batch_size: int, seed: int) -> EpochSampler:
        """Creates a sampler; a batch size above the number of images is reduced to it.

        Raises:
          UserError: if there are no images.
        """
        if not count:
            raise UserError("no images to train on; expected at least 1")
        return EpochSampler(count, min(batch_size, count), seed)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that show every image once, except a remainder of less than a batch."""
        return self.count // self.batch_size

    def batch(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the batch of a step, an int64 scalar from 0; works in a graph."""
        return self.batch_of(self.epoch_order(step // self.steps_per_epoch), step)

    def epoch_order(self, epoch: tf.Tensor) -> tf.Tensor:
        """Returns all positions in the order of an epoch; slow if there are many."""
        return _shuffled(tf.range(self.count, dtype=tf.int64), self.seed, epoch)

    def batch_of(self, order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns the same as `batch`, given the order of the step's epoch."""
        return _slice(order, step % self.steps_per_epoch, self.batch_size)


@dataclasses.dataclass(frozen=True)
class WeightedSampler(EpochSampler):
    """Batches that show each image in proportion to its weight.

    An epoch has as many places as there are images, filled by systematic sampling (Madow 1949,
    "On the Theory of Systematic Sampling, II"): the weights, scaled to sum to the number of places,
    are laid end to end, and place i takes the image that covers i + u, with one u per epoch,
    uniform in [0, 1). An image with scaled weight w is shown floor(w) or ceil(w) times, w times on
    average. The same holds for the sum over neighbours, such as the images of one vertical.

    Attributes:
      order: int64 [count], positions, with those of a vertical next to each other.
      ends: float64 [count], end of each weight in the order of `order`; the last is `count`.
    """

    order: np.ndarray
    ends: np.ndarray

    @classmethod
    def of_verticals(
        cls,
        verticals: np.ndarray,
        *,
        weights: str,
        batch_size: int,
        seed: int,
        more_often: Mapping[Any, float] | None = None,
    ) -> WeightedSampler:
        """Creates a sampler that divides an epoch among verticals, and evenly within each.

        Args:
          verticals: [n], vertical of each image.
          weights: name in `VERTICAL_WEIGHTS`.
          more_often: factors for the shares of some verticals, above 0.
          batch_size: images per batch; reduced to the number of images if larger.
          seed: any integer.

        Raises:
          UserError: if there are no images, or the weights are unknown.
        """
        if weights not in VERTICAL_WEIGHTS:
            allowed = ", ".join(VERTICAL_WEIGHTS)
            raise UserError(f"--student_vertical_weights={weights}: expected one of {allowed}")
        places = EpochSampler.over(len(verticals), batch_size=batch_size, seed=seed)
        order, counts = _grouped(verticals)
        each = VERTICAL_WEIGHTS[weights](counts.astype(np.float64)) / counts
        factors = more_often or {}
        starts = np.cumsum(counts) - counts
        each *= [factors.get(name, 1.0) for name in verticals[order[starts]].tolist()]
        ends = np.cumsum(np.repeat(each, counts))
        ends *= len(verticals) / ends[-1]
        return cls(places.count, places.batch_size, seed, order, ends)

    def batch_of(self, order: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns the same as `batch`, given the order of places in the step's epoch."""
        epoch = step // self.steps_per_epoch
        start = tf.random.stateless_uniform((), [self.seed + 1, epoch], dtype=tf.float64)
        covered = tf.cast(EpochSampler.batch_of(self, order, step), tf.float64) + start
        positions, ends = _tensors(self.order, self.ends)
        found = tf.searchsorted(ends, covered, side="right", out_type=tf.int64)
        # The last end may be rounded below the last place.
        return tf.gather(positions, tf.minimum(found, len(self.order) - 1))


def _shuffled(values: tf.Tensor, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(values, seed=[seed, epoch])


def _slice(order: tf.Tensor, offset: tf.Tensor, size: int) -> tf.Tensor:
    """Returns batch number `offset` of an epoch with the given order."""
    start = tf.cast(offset, order.dtype) * size
    return tf.ensure_shape(order[start : start + size], [size])


def _grouped(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups positions by value, texts or numbers.

    Returns:
      int64 [n], positions in the order of their values, ascending within a value; and int64, the
      count of each value.
    """
    codes, _ = ranked_codes_of(pa.chunked_array([pa.array(values)]))
    return np.argsort(codes, kind="stable"), np.bincount(codes)


def _tensors(*arrays: np.ndarray) -> list[tf.Tensor]:
    """Returns arrays as tensors outside the graph, which would otherwise copy them repeatedly."""
    with tf.init_scope(), tf.device("CPU"):
        return [tf.constant(array) for array in arrays]
