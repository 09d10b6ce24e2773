"""The baseline without learning: a colour histogram."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from apparel_embed.common.errors import UserError

HISTOGRAM_DIM = 64


def colour_histogram(image: np.ndarray) -> np.ndarray:
    """Returns the joint RGB histogram of an image: 4 x 4 x 4 bins, of Euclidean length 1.

    Args:
      image: uint8 [height, width, 3], RGB, at least one pixel.

    Returns:
      float32 [64]; the bin of a pixel is 16 * (red // 64) + 4 * (green // 64) + blue // 64.

    Raises:
      UserError: if the array has another shape or dtype.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(
            f"image of {image.dtype} {image.shape}; expected uint8 [height, width, 3] with at "
            "least one pixel"
        )
    level = (image >> 6).astype(np.intp)
    bins = 16 * level[..., 0] + 4 * level[..., 1] + level[..., 2]
    counts = np.bincount(bins.ravel(), minlength=HISTOGRAM_DIM).astype(np.float64)
    return (counts / np.linalg.norm(counts)).astype(np.float32)


def colour_histograms(images: Iterable[bytes]) -> np.ndarray:
    """Returns the colour histograms of encoded images.

    Args:
      images: encoded as JPEG or any other format that Pillow reads.

    Returns:
      float32 [n, 64], one row per image in input order.

    Raises:
      UserError: if an image cannot be decoded; the error gives its position.
    """
    rows = []
    for number, encoded in enumerate(images):
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"image {number} cannot be decoded: {error}") from error
        rows.append(colour_histogram(pixels))
    return np.stack(rows) if rows else np.zeros((0, HISTOGRAM_DIM), np.float32)
