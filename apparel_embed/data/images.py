"""Converts any image file to a small upright sRGB JPEG; stateless, without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from PIL import Image

from apparel_embed.common.settings import setting
from apparel_embed.data.decoding import (
    RejectedImage,
    load_upright,
    on_white,
    open_image,
    orientation_of,
    to_resizable,
    upright_size,
)

# File name suffixes of `decoding.FORMATS`, in lower case. Pillow's own list lacks HEIF until the
# first image is opened, and contains .pfm, whose floating-point pixels are rejected.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif"),
    *(".bmp", ".tif", ".tiff", ".heic", ".heics", ".heif", ".heifs", ".hif", ".ico"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".icb", ".vda", ".vst"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
# Twice Pillow's limit; it refuses to open larger images.
LARGEST_MAX_PIXELS = 178_956_970

Box = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels of the upright image."""
Source = Union[bytes, str, "os.PathLike[str]"]
"""The bytes of an image file, or its path."""


@dataclass(frozen=True)
class ImageSettings:
    """Settings of image preparation."""

    max_side: int = setting(
        256,
        "longest side of a prepared image in pixels; smaller ones are not enlarged",
        1,
        8192,
        rare=True,
    )
    crop_margin: float = setting(
        0.1, "margin kept on each side of the box, as a fraction of its side", 0, 10, rare=True
    )
    jpeg_quality: int = setting(92, "JPEG quality of prepared images", 1, 100, rare=True)
    max_pixels: int = setting(
        100_000_000,
        "images with more pixels are rejected before they are decoded",
        1,
        LARGEST_MAX_PIXELS,
        rare=True,
    )


@dataclass(frozen=True)
class PreparedImage:
    """A prepared image.

    Attributes:
      jpeg: a baseline sRGB JPEG without metadata.
      height, width: size of the JPEG in pixels.
      size: width and height of the whole upright source image in pixels.
    """

    jpeg: bytes
    height: int
    width: int
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """A prepared image before encoding.

    Attributes:
      image: upright, cropped, downscaled image in sRGB.
      format: Pillow's name of the file format, e.g. "JPEG".
      size: width and height of the whole upright image in pixels.
      crop: left, top, right, bottom of the part that was kept, in pixels.
    """

    image: Image.Image
    format: str
    size: tuple[int, int]
    crop: tuple[int, int, int, int]


def prepare_image(source: Source, settings: ImageSettings, box: Box | None = None) -> PreparedImage:
    """Decodes, turns upright, crops, downscales and encodes one image.

    Transparent pixels become white, colours are converted to sRGB with the image's profile, and
    only the first frame of an animation is used.

    Args:
      source: bytes or path of an image file.
      settings: sizes and quality.
      box: part to keep; None for the whole image.

    Returns:
      The prepared image; the same bytes for the same input and Pillow release.

    Raises:
      RejectedImage: if it is not a usable image; the message says why.
    """
    with _rejecting(settings.max_pixels):
        opened = open_upright(source, settings, box)
        image = opened.image
        file = io.BytesIO()
        # Full colour resolution: garments may differ only in thin stripes or small prints.
        image.save(file, "JPEG", quality=settings.jpeg_quality, subsampling="4:4:4")
        return PreparedImage(file.getvalue(), image.size[1], image.size[0], opened.size)


def open_upright(source: Source, settings: ImageSettings, box: Box | None = None) -> OpenedImage:
    """Does the same as `prepare_image`, except encoding the result."""
    with _opened(source, settings.max_pixels) as image:
        width, height = image.size
        if width * height > settings.max_pixels:
            raise RejectedImage(
                f"{width}x{height} pixels are more than the {settings.max_pixels} allowed"
            )
        if image.format in ("JPEG", "MPO"):
            size = upright_size(image)
            _draft(image, crop_rectangle(size, box, settings.crop_margin), settings.max_side)
            upright = load_upright(image)
        else:
            upright = load_upright(image)
            size = upright.size
        kept = left, top, right, bottom = crop_rectangle(size, box, settings.crop_margin)
        scale = min(1.0, settings.max_side / max(right - left, bottom - top))
        target = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        x_scale, y_scale = (have / full for have, full in zip(upright.size, size))
        crop = (left * x_scale, top * y_scale, right * x_scale, bottom * y_scale)
        small = to_resizable(upright).resize(target, Image.Resampling.LANCZOS, box=crop)
        upright_srgb = on_white(small, image.info.get("icc_profile"))
        return OpenedImage(upright_srgb, image.format or "", size, kept)


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of an image file.

    Raises:
      RejectedImage: if the file does not exist or cannot be read; the message says why.
    """
    try:
        return _check_file(Path(path)).read_bytes()
    except OSError as error:
        raise RejectedImage(f"cannot be read: {_reason(error)}") from error


def image_size(source: Source) -> tuple[int, int]:
    """Returns width and height in pixels of an upright image, without decoding it.

    Thread-safe, so it cannot silence Pillow, which may warn of odd metadata.

    Raises:
      RejectedImage: if it is not an image; the message says why.
    """
    with _opened(source, LARGEST_MAX_PIXELS, is_quiet=False) as image:
        return upright_size(image)


def is_plain_image(source: bytes, max_pixels: int) -> bool:
    """Returns whether all decoders agree with `prepare_image` on an image, from its metadata.

    They do for a grey or RGB JPEG, or a PNG, with at most `max_pixels`, upright and without a
    colour profile.

    Raises:
      RejectedImage: if it is not an image; the message says why.
    """
    with _opened(source, max_pixels) as image:
        # MPO: a JPEG followed by others, as written by some phones.
        is_jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
        return (
            (is_jpeg or image.format == "PNG")
            and image.width * image.height <= max_pixels
            and "icc_profile" not in image.info
            and orientation_of(image) == 1
        )


def crop_rectangle(
    size: tuple[int, int], box: Box | None, margin: float
) -> tuple[int, int, int, int]:
    """Returns the pixels to keep: the box with its margin, clipped to the image.

    Args:
      size: width and height of the upright image.
      box: part to keep; None for the whole image.
      margin: margin added on each side, as a fraction of the box's side.

    Returns:
      left, top, right, bottom in whole pixels, at least one pixel wide and high.

    Raises:
      RejectedImage: if the box is completely outside the image.
    """
    width, height = size
    if box is None:
        return 0, 0, width, height
    x_min, y_min, x_max, y_max = box
    if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
        raise RejectedImage(
            f"box {x_min:g},{y_min:g},{x_max:g},{y_max:g} lies outside the image "
            f"of {width}x{height} pixels"
        )
    x_margin, y_margin = (x_max - x_min) * margin, (y_max - y_min) * margin
    return (
        max(0, math.floor(x_min - x_margin)),
        max(0, math.floor(y_min - y_margin)),
        min(width, math.ceil(x_max + x_margin)),
        min(height, math.ceil(y_max + y_margin)),
    )


@contextlib.contextmanager
def _opened(source: Source, max_pixels: int, is_quiet: bool = True) -> Iterator[Image.Image]:
    """Yields an image with only its metadata read."""
    if isinstance(source, bytes):
        if not source:
            raise RejectedImage("empty file")
        file: io.BytesIO | Path = io.BytesIO(source)
    else:
        file = _check_file(Path(source))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_rejecting(max_pixels))
        if is_quiet:
            # Pillow warns of odd metadata and of sizes that max_pixels already limits.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        yield stack.enter_context(open_image(file))


@contextlib.contextmanager
def _rejecting(max_pixels: int) -> Iterator[None]:
    """Turns any error about an image into a RejectedImage."""
    try:
        yield
    except RejectedImage:
        raise
    except Image.UnidentifiedImageError as error:
        raise RejectedImage("not an image, or of an unknown format") from error
    except Image.DecompressionBombError as error:
        raise RejectedImage(f"more than {max_pixels} pixels") from error
    except MemoryError as error:
        raise RejectedImage("not enough memory to decode it") from error
    except Exception as error:
        # Decoders raise all kinds of errors (OSError, SyntaxError, struct.error, KeyError ...);
        # none may stop the following images.
        raise RejectedImage(f"truncated or damaged: {_reason(error)}") from error


def _check_file(path: Path) -> Path:
    """Returns `path` if it is a readable, non-empty file; raises RejectedImage otherwise."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RejectedImage("no such file") from error
    except (OSError, ValueError) as error:
        raise RejectedImage(f"cannot be opened: {_reason(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise RejectedImage("is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise RejectedImage("is not a regular file")
    if not status.st_size:
        raise RejectedImage("empty file")
    if not os.access(path, os.R_OK):
        raise RejectedImage("cannot be opened: permission denied")
    return path


def _draft(image: Image.Image, kept: tuple[int, int, int, int], max_side: int) -> None:
    """Makes Pillow decode a large JPEG at 1/2, 1/4 or 1/8 size, if the kept part allows it.

    Never below twice the needed size: several times faster, and the resizing filter hides the
    difference.
    """
    left, top, right, bottom = kept
    share = 2 * max_side / max(right - left, bottom - top)
    if share < 1:
        width, height = image.size
        image.draft(image.mode, (math.ceil(width * share), math.ceil(height * share)))


def _reason(error: BaseException) -> str:
    """Returns the error's text without line breaks and memory addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r" at 0x[0-9a-f]+", "", text)
