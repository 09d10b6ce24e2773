"""Sizes of many pictures, from the heads of their files."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from apparel_embed.common.progress import progress_bar
from apparel_embed.data.picture_pool import image_path
from apparel_embed.data.pictures import RejectedPicture, picture_size

# Reading the head of a file waits for the disk, not for the processor.
_READERS = 16


def picture_sizes(root: Path, images: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns widths and heights of upright pictures in pixels, float [n]; NaN where unreadable.

    Args:
      root: where relative paths begin.
      images: n paths or file:// URIs; preparing tells what is wrong with those that are unreadable.
    """

    def size(image: str) -> tuple[float, float]:
        try:
            return picture_size(image_path(image, root))
        except RejectedPicture:
            return np.nan, np.nan

    sizes = np.empty((len(images), 2))
    with warnings.catch_warnings(), ThreadPoolExecutor(_READERS) as readers:
        # Pillow warns of odd metadata; here and not in the threads, as filters are for all of them.
        warnings.simplefilter("ignore")
        found = readers.map(size, images)
        bar = progress_bar(found, total=len(images), what="sizes", unit="images")
        for index, one in enumerate(bar):
            sizes[index] = one
    return sizes[:, 0], sizes[:, 1]
