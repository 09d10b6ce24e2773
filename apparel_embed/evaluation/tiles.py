"""Products of a block of queries and a part of the gallery: by NumPy, or on any TensorFlow device.

Both say which pairs reach a bound, and know by how much their products may be off.
"""

from __future__ import annotations

import sys
from typing import Any, Protocol

import numpy as np

# Entries of a row that the largest ones are sought in, for each that is wanted.
_GROUPS_PER_WANTED = 8


class Tiles(Protocol):
    """What makes products, and looks for what is large in them.

    Attributes:
      query_block: queries that are best handled at once.
      gallery_block: gallery vectors that are best handled at once.
      input_rounding: by how much of itself a factor may be off before it is multiplied.
    """

    query_block: int
    gallery_block: int
    input_rounding: float

    def load(self, vectors: np.ndarray) -> Any:
        """Puts float32 vectors [n, dim] where products are made."""

    def product(self, queries: Any, part: Any) -> Any:
        """Returns the products [q, g] of loaded queries with a loaded part of the gallery."""

    def reached(self, product: Any, count: int) -> np.ndarray:
        """Returns [q] float32 that at least `count` entries of each row reach, as much as is easy.

        It is minus infinity where a row has fewer entries.
        """

    def passing(self, product: Any, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns row and column of every entry that reaches its row's bound [q], row by row."""


class HostTiles:
    """By NumPy. A part of the gallery is small enough to stay in a core's cache with its product.

    For one thread: the products of all calls share their memory.
    """

    query_block = 1024
    gallery_block = 1024
    input_rounding = 0.0

    def __init__(self) -> None:
        self._product = np.empty(0, np.float32)
        self._passing = np.empty(0, bool)

    def load(self, vectors: np.ndarray) -> np.ndarray:
        """See `Tiles`."""
        return vectors

    def product(self, queries: np.ndarray, part: np.ndarray) -> np.ndarray:
        """See `Tiles`."""
        size = len(queries) * len(part)
        if len(self._product) < size:
            self._product, self._passing = np.empty(size, np.float32), np.empty(size, bool)
        product = self._product[:size].reshape(len(queries), len(part))
        return np.matmul(queries, part.T, out=product)

    def reached(self, product: np.ndarray, count: int) -> np.ndarray:
        """See `Tiles`."""
        rows, columns = product.shape
        if count > columns:
            return np.full(rows, -np.inf, np.float32)
        # The largest entries of groups are few, and the last wanted of them is hardly smaller than
        # the last wanted entry of all.
        size = max(1, columns // (_GROUPS_PER_WANTED * count))
        groups = columns // size
        largest = product[:, : groups * size].reshape(rows, size, groups).max(axis=1)
        return np.partition(largest, groups - count, axis=1)[:, groups - count]

    def passing(self, product: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Tiles`."""
        passing = self._passing[: product.size].reshape(product.shape)
        np.greater_equal(product, bound[:, None], out=passing)
        return np.divmod(np.flatnonzero(passing), product.shape[1])


class DeviceTiles:
    """By TensorFlow, on a device that it names.

    Args:
      device: such as "GPU:0".
    """

    query_block = 2048
    gallery_block = 32768

    def __init__(self, device: str) -> None:
        import tensorflow as tf

        self._tf = tf
        self._device = device
        # TensorFloat-32, which recent GPUs multiply by, keeps 11 bits of a factor.
        truncates = "GPU" in device and tf.config.experimental.tensor_float_32_execution_enabled()
        self.input_rounding = 2.0**-11 if truncates else 0.0

    def load(self, vectors: np.ndarray) -> Any:
        """See `Tiles`."""
        with self._tf.device(self._device):
            return self._tf.constant(vectors)

    def product(self, queries: Any, part: Any) -> Any:
        """See `Tiles`."""
        with self._tf.device(self._device):
            return self._tf.matmul(queries, part, transpose_b=True)

    def reached(self, product: Any, count: int) -> np.ndarray:
        """See `Tiles`."""
        rows, columns = product.shape
        if count > columns:
            return np.full(rows, -np.inf, np.float32)
        with self._tf.device(self._device):
            return self._tf.math.top_k(product, count, sorted=True).values[:, -1].numpy()

    def passing(self, product: Any, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Tiles`."""
        with self._tf.device(self._device):
            pairs = self._tf.where(product >= self._tf.constant(bound[:, None])).numpy()
        return pairs[:, 0], pairs[:, 1]


def make_tiles(device: str | None) -> Tiles:
    """Returns what makes products on a device.

    Args:
      device: a name of TensorFlow's, such as "GPU:0"; None for the first GPU that TensorFlow knows
        of, and else NumPy.
    """
    # A program that does not use TensorFlow need not load it to be told that there is no GPU.
    if device is None and "tensorflow" in sys.modules:
        gpus = sys.modules["tensorflow"].config.list_physical_devices("GPU")
        device = "GPU:0" if gpus else None
    return HostTiles() if device is None else DeviceTiles(device)
