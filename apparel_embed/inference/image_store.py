"""Pictures of chosen records as model input, decoded once and kept where they fit in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.models.preprocessing import decode_to_square

_READ_AHEAD = 256


def decoded_batches(
    dataset: PreparedDataset, records: np.ndarray, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """Streams decoded pictures in the order of `records`.

    Args:
      dataset: where the pictures are.
      records: int64 [n] record numbers.
      image_size: side of the square they are fitted into, in pixels.
      batch_size: pictures a batch; the last may be smaller.

    Returns:
      A dataset of uint8 [batch, image_size, image_size, 3].
    """

    def image_bytes() -> Iterator[bytes]:
        for start in range(0, len(records), _READ_AHEAD):
            yield from dataset.read_images(records[start : start + _READ_AHEAD])

    return (
        tf.data.Dataset.from_generator(image_bytes, output_signature=tf.TensorSpec((), tf.string))
        .map(lambda one: decode_to_square(one, image_size), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


class ImageStore:
    """Random access to decoded pictures, from inside a graph.

    Where all of them fit into `cache_gib`, they are decoded once and kept; otherwise each batch
    reads and decodes its own.

    Args:
      dataset: where the pictures are.
      records: int64 [n] record numbers; positions in the store count along them.
      image_size: side of the square they are fitted into, in pixels.
      cache_gib: memory for decoded pictures, in GiB.
    """

    def __init__(
        self, dataset: PreparedDataset, records: np.ndarray, image_size: int, cache_gib: float
    ) -> None:
        self._dataset = dataset
        self._records = np.asarray(records, np.int64)
        self._image_size = image_size
        self._cached: tf.Tensor | None = None
        if len(records) * image_size * image_size * 3 <= cache_gib * 2**30:
            batches = decoded_batches(dataset, self._records, image_size, _READ_AHEAD)
            with tf.device("CPU"):
                none = tf.zeros([0, image_size, image_size, 3], tf.uint8)
                self._cached = tf.concat([none, *batches], axis=0)

    def __len__(self) -> int:
        return len(self._records)

    def gather(self, positions: tf.Tensor) -> tf.Tensor:
        """Returns the pictures at some positions.

        Args:
          positions: int64 [batch], each below the length of the store.

        Returns:
          uint8 [batch, image_size, image_size, 3].
        """
        if self._cached is not None:
            return tf.gather(self._cached, positions)
        image_bytes = tf.numpy_function(self._read, [positions], tf.string, stateful=False)
        image_bytes.set_shape(positions.shape)
        return tf.map_fn(
            lambda one: decode_to_square(one, self._image_size),
            image_bytes,
            fn_output_signature=tf.TensorSpec((self._image_size, self._image_size, 3), tf.uint8),
        )

    def _read(self, positions: np.ndarray) -> np.ndarray:
        return np.array(self._dataset.read_images(self._records[positions]), dtype=object)
