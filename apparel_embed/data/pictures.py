"""From any image file to a small upright sRGB JPEG; no other state, no TensorFlow."""

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

import numpy as np
import pi_heif
from PIL import ExifTags, Image, TiffImagePlugin

from apparel_embed.common.settings import setting
from apparel_embed.data.colours import on_white
from apparel_embed.data.exact_loading import complete_header, load

# Pillow opens more kinds, some by starting other programs (EPS); these are what shops use, and
# HEIF (.heic), which telephones write.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000"),
    "HEIF",
)
# How names of such files end, in lower case. Pillow's own list has no HEIF before the first picture
# is opened; it has .pfm, whose floating-point pixels are rejected.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".avifs", ".gif"),
    *(".bmp", ".tif", ".tiff", ".heic", ".heics", ".heif", ".heifs", ".hif", ".ico"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".icb", ".vda", ".vst"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
)
# Twice Pillow's own limit, above which it refuses to open a picture.
LARGEST_MAX_PIXELS = 178_956_970

_ORIENTATION_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Box = tuple[float, float, float, float]


class RejectedPicture(Exception):
    """A picture cannot be used; the message is the reason, in one line."""


@dataclass(frozen=True)
class PictureSettings:
    """How pictures are prepared."""

    max_side: int = setting(
        256,
        "longest side of a prepared picture in pixels; smaller ones are not enlarged",
        1,
        8192,
        seldom=True,
    )
    crop_margin: float = setting(
        0.1, "kept around the box on each side, as a fraction of the box's side", 0, 10, seldom=True
    )
    jpeg_quality: int = setting(92, "JPEG quality of prepared pictures", 1, 100, seldom=True)
    max_pixels: int = setting(
        100_000_000,
        "pictures of more pixels are rejected before they are decoded",
        1,
        LARGEST_MAX_PIXELS,
        seldom=True,
    )


@dataclass(frozen=True)
class Picture:
    """A prepared picture.

    Attributes:
      jpeg: the file's bytes: baseline sRGB JPEG without metadata.
      height: pixels.
      width: pixels.
    """

    jpeg: bytes
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class OpenedPicture:
    """A picture as it is prepared, before it is encoded.

    Attributes:
      image: upright, cropped, shrunk sRGB.
      format: of the file, by Pillow's name, e.g. "JPEG".
      size: width and height of the whole upright picture in pixels.
      crop: left, top, right, bottom of what was kept of it.
    """

    image: Image.Image
    format: str
    size: tuple[int, int]
    crop: tuple[int, int, int, int]


def prepare_picture(
    source: bytes | str | os.PathLike[str], settings: PictureSettings, box: Box | None = None
) -> Picture:
    """Decodes, turns upright, crops, shrinks and encodes one picture.

    Transparent pixels become white, colours are converted to sRGB by the picture's own profile,
    of an animation the first frame is taken.

    Args:
      source: the bytes of a picture file, or its path.
      settings: sizes and quality.
      box: x_min, y_min, x_max, y_max in pixels of the upright picture; None for all of it.

    Returns:
      The prepared picture; the same bytes for the same input and Pillow release.

    Raises:
      RejectedPicture: no usable picture; the message says why.
    """
    with _rejecting(settings.max_pixels):
        return _encode(open_picture(source, settings, box).image, settings.jpeg_quality)


def open_picture(
    source: bytes | str | os.PathLike[str], settings: PictureSettings, box: Box | None = None
) -> OpenedPicture:
    """Does all that `prepare_picture` does, but for encoding the result.

    Args:
      source: the bytes of a picture file, or its path.
      settings: sizes; the quality has no influence.
      box: x_min, y_min, x_max, y_max in pixels of the upright picture; None for all of it.

    Raises:
      RejectedPicture: no usable picture; the message says why.
    """
    file = _source_file(source)
    with _rejecting(settings.max_pixels), warnings.catch_warnings():
        # Pillow warns of odd metadata and of sizes that max_pixels already bounds.
        warnings.simplefilter("ignore")
        with _open(file) as image:
            return _prepare(image, settings, box)


def read_picture_file(path: str | os.PathLike[str]) -> bytes:
    """Returns what is in a picture's file.

    Raises:
      RejectedPicture: no such file, or one that cannot be read; the message says why.
    """
    try:
        return _check_file(Path(path)).read_bytes()
    except OSError as error:
        raise RejectedPicture(f"cannot be read: {_one_line(error)}") from error


def picture_size(source: bytes | str | os.PathLike[str]) -> tuple[int, int]:
    """Returns width and height in pixels of a picture turned upright, without decoding it.

    Fit for threads. Pillow may warn of odd metadata.

    Args:
      source: the bytes of a picture file, or its path.

    Raises:
      RejectedPicture: no picture; the message says why.
    """
    file = _source_file(source)
    with _rejecting(LARGEST_MAX_PIXELS), _open(file) as image:
        width, height = image.size
        # Pillow exchanges the sides of a TIFF by its tag, but not by what its XMP says.
        tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
        is_turned = ExifTags.Base.Orientation in tags
        return (height, width) if _orientation(image) >= 5 and not is_turned else (width, height)


def is_plain_picture(source: bytes, max_pixels: int) -> bool:
    """Returns whether any decoder shows a file as `prepare_picture` does, by its metadata alone.

    That is a grey or RGB JPEG, or a PNG, which is upright and has no colour profile.

    Args:
      source: the bytes of a picture file.
      max_pixels: a larger picture is not plain.

    Raises:
      RejectedPicture: no picture; the message says why.
    """
    file = _source_file(source)
    with _rejecting(max_pixels), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with _open(file) as image:
            # MPO: a JPEG with further ones behind, as some telephones make them.
            is_jpeg = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")
            return (
                (is_jpeg or image.format == "PNG")
                and image.width * image.height <= max_pixels
                and "icc_profile" not in image.info
                and _orientation(image) == 1
            )


def _open(file: io.BytesIO | Path) -> Image.Image:
    """Returns a picture of which only the metadata is read, wherever in the file it is."""
    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener()
    image = Image.open(file, formats=FORMATS)
    complete_header(image)
    return image


def _source_file(source: bytes | str | os.PathLike[str]) -> io.BytesIO | Path:
    """Returns what Pillow is to open; rejects what has nothing in it."""
    if not isinstance(source, bytes):
        return _check_file(Path(source))
    if not source:
        raise RejectedPicture("empty file")
    return io.BytesIO(source)


@contextlib.contextmanager
def _rejecting(max_pixels: int) -> Iterator[None]:
    """Turns whatever goes wrong with a picture into a RejectedPicture."""
    try:
        yield
    except RejectedPicture:
        raise
    except Image.UnidentifiedImageError as error:
        raise RejectedPicture("not a picture, or of an unknown format") from error
    except Image.DecompressionBombError as error:
        raise RejectedPicture(f"more than {max_pixels} pixels") from error
    except MemoryError as error:
        raise RejectedPicture("not enough memory to decode it") from error
    except Exception as error:
        # Decoders raise whatever their format makes them trip over: OSError, SyntaxError,
        # struct.error, KeyError ...; none of it may stop the pictures that follow.
        raise RejectedPicture(f"truncated or damaged: {_one_line(error)}") from error


def crop_rectangle(
    size: tuple[int, int], box: Box | None, margin: float
) -> tuple[int, int, int, int]:
    """Returns the pixels to keep: the box and its margin, inside the picture.

    Args:
      size: width and height of the upright picture.
      box: x_min, y_min, x_max, y_max in pixels, or None for the whole picture.
      margin: added on each side, as a fraction of the box's side.

    Returns:
      left, top, right, bottom in whole pixels, at least one pixel wide and high.

    Raises:
      RejectedPicture: the box lies wholly outside.
    """
    width, height = size
    if box is None:
        return 0, 0, width, height
    x_min, y_min, x_max, y_max = box
    if x_min >= width or y_min >= height or x_max <= 0 or y_max <= 0:
        raise RejectedPicture(
            f"box {x_min:g},{y_min:g},{x_max:g},{y_max:g} lies outside the picture "
            f"of {width}x{height} pixels"
        )
    x_margin, y_margin = (x_max - x_min) * margin, (y_max - y_min) * margin
    return (
        max(0, math.floor(x_min - x_margin)),
        max(0, math.floor(y_min - y_margin)),
        min(width, math.ceil(x_max + x_margin)),
        min(height, math.ceil(y_max + y_margin)),
    )


def _check_file(path: Path) -> Path:
    """Returns `path` if it is a file with something in it."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise RejectedPicture("no such file") from error
    except (OSError, ValueError) as error:
        raise RejectedPicture(f"cannot be opened: {_one_line(error)}") from error
    if stat.S_ISDIR(status.st_mode):
        raise RejectedPicture("is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise RejectedPicture("is no regular file")
    if not status.st_size:
        raise RejectedPicture("empty file")
    if not os.access(path, os.R_OK):
        raise RejectedPicture("cannot be opened: permission denied")
    return path


def _prepare(image: Image.Image, settings: PictureSettings, box: Box | None) -> OpenedPicture:
    """Returns the upright, cropped, shrunk sRGB picture."""
    width, height = image.size
    if width * height > settings.max_pixels:
        raise RejectedPicture(
            f"{width}x{height} pixels are more than the {settings.max_pixels} allowed"
        )
    upright, full_size = _decode(image, settings, box)
    kept = left, top, right, bottom = crop_rectangle(full_size, box, settings.crop_margin)
    scale = min(1.0, settings.max_side / max(right - left, bottom - top))
    target = (
        max(1, round((right - left) * scale)),
        max(1, round((bottom - top) * scale)),
    )
    x_scale, y_scale = (have / full for have, full in zip(upright.size, full_size))
    crop = (left * x_scale, top * y_scale, right * x_scale, bottom * y_scale)
    small = _resizable(upright).resize(target, Image.Resampling.LANCZOS, box=crop)
    upright_srgb = on_white(small, image.info.get("icc_profile"))
    return OpenedPicture(upright_srgb, image.format or "", full_size, kept)


def _decode(
    image: Image.Image, settings: PictureSettings, box: Box | None
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the upright picture, and the size it has when it is decoded in full.

    A large JPEG is decoded at a half, a quarter or an eighth, never below twice the size that is
    needed: several times faster, and the filter that follows hides the difference.
    """
    if image.format not in ("JPEG", "MPO"):
        loaded = load(image)
        upright = _upright(loaded, _orientation(image))
        return upright, upright.size
    orientation = _orientation(image)
    width, height = image.size
    full_size = (height, width) if orientation >= 5 else (width, height)
    left, top, right, bottom = crop_rectangle(full_size, box, settings.crop_margin)
    share = 2 * settings.max_side / max(right - left, bottom - top)
    if share < 1:
        image.draft(image.mode, (math.ceil(width * share), math.ceil(height * share)))
    image.load()
    return _upright(image, orientation), full_size


def _orientation(image: Image.Image) -> int:
    """Returns the orientation by EXIF or XMP, 1 to 8; 1 if there is none or it cannot be read."""
    try:
        # Of a PNG, Pillow's own method would decode all pixels first; `_open` has read what it
        # looks for behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Pillow's EXIF parser raises many kinds of error; the picture itself may be sound.
        return 1
    return value if value in _ORIENTATION_METHODS else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Returns the picture as it is to be looked at."""
    method = _ORIENTATION_METHODS.get(orientation)
    return image if method is None else image.transpose(method)


def _resizable(image: Image.Image) -> Image.Image:
    """Returns the picture in a mode that can be resized smoothly: L, RGB, RGBA or CMYK."""
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise RejectedPicture("floating-point pixels have no known range")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Returns 16-bit grey scaled to 8 bits; Pillow itself would clip at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise RejectedPicture("pixels of more than 16 bits have no known range")
    grey = Image.fromarray(np.round(values / 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("RGBA", (grey, grey, grey, alpha))


def _encode(image: Image.Image, quality: int) -> Picture:
    """Returns the picture as JPEG."""
    file = io.BytesIO()
    # Full colour resolution: thin stripes and small prints tell garments apart.
    image.save(file, "JPEG", quality=quality, subsampling="4:4:4")
    return Picture(file.getvalue(), height=image.size[1], width=image.size[0])


def _one_line(error: BaseException) -> str:
    """Returns the error's text without line ends and memory addresses."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r" at 0x[0-9a-f]+", "", text)
