"""Images of chosen records as model input: streamed, or with random access and caching."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.cores import usable_cores
from apparel_embed.common.progress import progress_bar
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.config import EmbeddingConfig
from apparel_embed.models.preprocessing import decode_to_square

_READ_AHEAD = 256
# Memory overhead of an encoded image.
_BYTES_BESIDE = 64


_config = EmbeddingConfig()


def embed_by(config: EmbeddingConfig) -> None:
    """Sets how this process embeds images from now on."""
    global _config
    _config = config


def decoding_threads() -> int:
    """Returns how many images or batches are decoded in parallel: one per core."""
    return usable_cores()


def decoded_batches(
    dataset: PreparedDataset, records: np.ndarray, image_size: int, batch_size: int = 0
) -> tf.data.Dataset:
    """Streams decoded images in the order of `records`.

    Args:
      dataset: dataset that contains the images.
      records: int64 [n] record numbers.
      image_size: side of the square that images are fitted into, in pixels.
      batch_size: images per batch, 0 for the value set with `embed_by`; the last may be smaller.

    Returns:
      A dataset of uint8 [batch, image_size, image_size, 3].
    """
    size = batch_size or _config.batch_size
    # Python passes on hundreds of images at a time; TensorFlow's own threads do the rest.
    encoded = tf.data.Dataset.from_generator(
        lambda: _encoded_parts(dataset, records),
        output_signature=tf.TensorSpec([None], tf.string),
    )
    return (
        encoded.prefetch(1)
        .unbatch()
        .map(lambda one: decode_to_square(one, image_size), num_parallel_calls=decoding_threads())
        .batch(size)
        .apply(tf.data.experimental.assert_cardinality(-(-len(records) // size)))
        .prefetch(tf.data.AUTOTUNE)
    )


def on_device(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Returns batches prefetched to the GPU; unchanged without a GPU."""
    gpus = tf.config.list_logical_devices("GPU")
    return batches.apply(tf.data.experimental.prefetch_to_device(gpus[0].name)) if gpus else batches


class ImageStore:
    """Random access to images from inside a graph.

    If they fit into `cache_gib`, it keeps the decoded images of all records; otherwise, if those
    fit, the encoded ones, which are decoded per batch. If neither fits, each batch reads its images
    from the dataset. All three give the same images.

    Args:
      dataset: dataset that contains the images.
      records: int64 [n] record numbers; positions in the store are indices into them.
      image_size: side of the square that images are fitted into, in pixels.
      cache_gib: memory for images, in GiB.
      what: purpose of the images, shown before the progress bar.

    Attributes:
      gib: memory that the cached images take, in GiB.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        records: np.ndarray,
        image_size: int,
        cache_gib: float,
        what: str = "images",
    ) -> None:
        self._dataset = dataset
        self._records = np.asarray(records, np.int64)
        self._image_size = image_size
        self._decoded: tf.Variable | None = None
        self._encoded: tf.Variable | None = None
        self.gib = 0.0
        decoded = len(records) * image_size * image_size * 3 / 2**30
        whole = sum(shard["bytes"] for shard in dataset.info["shards"])
        average = whole / max(len(dataset), 1) + _BYTES_BESIDE
        encoded = len(records) * average / 2**30
        bar = progress_bar(total=len(records), what=f"{what}: into memory", unit="images")
        if decoded <= cache_gib:
            self.gib = decoded
            shape = [image_size, image_size, 3]
            parts = decoded_batches(dataset, self._records, image_size, _READ_AHEAD)
            self._decoded = _kept(parts, len(records), shape, tf.uint8, bar)
        elif encoded <= cache_gib:
            self.gib = encoded
            parts = _encoded_parts(dataset, self._records)
            self._encoded = _kept(parts, len(records), [], tf.string, bar)
        else:
            logging.info(
                f"{what}: {len(records)} images take {decoded:.3g} GiB decoded and {encoded:.3g} "
                f"encoded, more than --cache_gib={cache_gib:g}: each batch reads its images from "
                "the dataset"
            )
        bar.close()

    def __len__(self) -> int:
        return len(self._records)

    def gather(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns uint8 [batch, image_size, image_size, 3], given positions int64 [batch]."""
        return self.decode(self.read(positions))

    def read(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns images as stored: fast, but stateful, so TensorFlow runs it in order."""
        if self._decoded is not None:
            return tf.gather(self._decoded, positions)
        if self._encoded is not None:
            return tf.gather(self._encoded, positions)
        image_bytes = tf.numpy_function(self._read, [positions], tf.string, stateful=False)
        image_bytes.set_shape(positions.shape)
        return image_bytes

    def decode(self, kept: tf.Tensor) -> tf.Tensor:
        """Decodes images from `read`: the slow half of `gather`, which can run in parallel."""
        if kept.dtype == tf.uint8:
            return kept
        return tf.map_fn(
            lambda one: decode_to_square(one, self._image_size),
            kept,
            fn_output_signature=tf.TensorSpec((self._image_size, self._image_size, 3), tf.uint8),
        )

    def _read(self, positions: np.ndarray) -> np.ndarray:
        return _encoded(self._dataset, self._records[positions])


def _encoded_parts(dataset: PreparedDataset, records: np.ndarray) -> Iterator[np.ndarray]:
    """Yields encoded images, a few hundred at a time."""
    for start in range(0, len(records), _READ_AHEAD):
        yield _encoded(dataset, records[start : start + _READ_AHEAD])


def _encoded(dataset: PreparedDataset, records: np.ndarray) -> np.ndarray:
    # As objects, since numpy's own strings drop trailing zeros.
    return np.array(dataset.read_images(records), dtype=object)


def _kept(
    parts: tf.data.Dataset | Iterator[np.ndarray],
    count: int,
    shape: list[int],
    dtype: tf.DType,
    bar,
) -> tf.Variable:
    """Returns consecutive parts as one variable.

    A variable instead of a tensor, since TensorFlow copies tensors into the graph of a pipeline
    that uses them, which takes the same memory again and seconds per GiB.
    """
    with tf.device("CPU"):
        kept = tf.Variable(tf.zeros([count, *shape], dtype), trainable=False)
        start = 0
        for part in parts:
            end = start + len(part)
            # In place; assigning to a slice would first read, i.e. copy, the whole variable.
            kept.scatter_update(tf.IndexedSlices(part, tf.range(start, end)))
            bar.update(end - start)
            start = end
    return kept
