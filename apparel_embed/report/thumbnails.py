"""Pictures made small and square."""

from __future__ import annotations

import io

from PIL import Image


def square_thumbnail(image: bytes, side: int) -> Image.Image:
    """Returns a picture as a square, on white where it is not square itself.

    Args:
      image: a file that Pillow reads.
      side: of the square, in pixels.
    """
    square = Image.new("RGB", (side, side), "white")
    with Image.open(io.BytesIO(image)) as picture:
        fitted = picture.convert("RGB")
    scale = side / max(fitted.size)
    size = [max(1, round(scale * length)) for length in fitted.size]
    fitted = fitted.resize(size, Image.Resampling.LANCZOS)
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return square
