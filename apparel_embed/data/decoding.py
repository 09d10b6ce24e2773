"""From an image file to upright sRGB pixels, as exact as the file says; what Pillow leaves open.

Pillow misses metadata behind the pixels, transparent colours of few or many bits, first frames
smaller than their canvas, and clips 16 bits.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pi_heif
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

# Pillow opens more kinds, some by starting other programs (EPS); these are what shops use, and
# HEIF (.heic), which telephones write.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000"),
    "HEIF",
)

_TRANSPOSE = Image.Transpose
_ORIENTATION_METHODS = {
    2: _TRANSPOSE.FLIP_LEFT_RIGHT,
    3: _TRANSPOSE.ROTATE_180,
    4: _TRANSPOSE.FLIP_TOP_BOTTOM,
    5: _TRANSPOSE.TRANSPOSE,
    6: _TRANSPOSE.ROTATE_270,
    7: _TRANSPOSE.TRANSVERSE,
    8: _TRANSPOSE.ROTATE_90,
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
# Pillow scales grey of few bits to 8, but not the transparent grey: the mask of the sample's bits,
# and what one step becomes.
_GREY_STEPS = {"L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}


class RejectedImage(Exception):
    """An image cannot be used; the message is the reason, in one line."""


def open_image(file: io.BytesIO | Path) -> Image.Image:
    """Returns an image of which only the metadata is read, wherever in the file it is."""
    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener()
    image = Image.open(file, formats=FORMATS)
    if image.format == "PNG":
        _complete_png_header(image)
    return image


def orientation_of(image: Image.Image) -> int:
    """Returns the orientation by EXIF or XMP, 1 to 8; 1 if there is none or it cannot be read."""
    try:
        # Of a PNG, Pillow's own method would decode all pixels first; `open_image` has read what
        # it looks for behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Pillow's EXIF parser raises many kinds of error; the image itself may be sound.
        return 1
    return value if value in _ORIENTATION_METHODS else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of an opened image as it is to be looked at."""
    width, height = image.size
    # Pillow exchanges the sides of a TIFF by its tag, but not by what its XMP says.
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    is_turned = ExifTags.Base.Orientation in tags
    return (height, width) if orientation_of(image) >= 5 and not is_turned else (width, height)


def load_upright(image: Image.Image) -> Image.Image:
    """Decodes an opened image and turns it; with an alpha channel where Pillow does not say all."""
    if image.format == "GIF":
        loaded = _load_first_frame(image)
    elif image.format == "PNG" and _samples(image) == "RGB;16B" and "transparency" in image.info:
        loaded = _load_masked(image)
    else:
        image.load()
        loaded = image
    # Now only: some formats are turned, and lose it, as they are decoded.
    method = _ORIENTATION_METHODS.get(orientation_of(image))
    return loaded if method is None else loaded.transpose(method)


def to_resizable(image: Image.Image) -> Image.Image:
    """Returns the image in a mode that can be resized smoothly: L, RGB, RGBA or CMYK."""
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "F":
        raise RejectedImage("floating-point pixels have no known range")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB", "CMYK"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def on_white(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Returns an image in sRGB on a white ground, without any metadata.

    Args:
      image: L, RGB, RGBA or CMYK.
      profile: ICC profile of its colours, None for sRGB; a broken or unfitting one is ignored.
    """
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    opaque = image if alpha is None else image.convert("RGB")
    converted = None
    if profile:
        try:
            theirs = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            # None is what it returns of an image changed in place.
            converted = ImageCms.profileToProfile(opaque, theirs, srgb, outputMode="RGB") or opaque
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(converted or opaque.convert("RGB"), mask=alpha)
    return canvas


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Returns 16-bit grey scaled to 8 bits; Pillow itself would clip at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise RejectedImage("pixels of more than 16 bits have no known range")
    grey = Image.fromarray(np.round(values / 257).astype(np.uint8))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))
    return Image.merge("RGBA", (grey, grey, grey, alpha))


def _load_first_frame(image: Image.Image) -> Image.Image:
    """Returns a GIF's first frame; what it leaves of the canvas is transparent."""
    extent = image.tile[0][1]  # type: ignore[attr-defined]
    image.load()
    if tuple(extent) == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.convert("RGBA").crop(extent), extent[:2])
    return canvas


def _load_masked(image: Image.Image) -> Image.Image:
    """Returns a PNG of 16-bit colours, one of which is transparent, as RGBA.

    Pillow keeps the upper half of 16 bits, in which different colours may be alike.
    """
    file = _file(image)
    place = file.tell()
    file.seek(0)
    with Image.open(io.BytesIO(file.read()), formats=["PNG"]) as lower:
        file.seek(place)
        # Read in the other byte order, the lower half is what Pillow keeps.
        lower.tile = [lower.tile[0]._replace(args="RGB;16L")]
        halves = np.asarray(image), np.asarray(lower)
    wanted = np.array(image.info.pop("transparency"))
    is_transparent = (halves[0] == wanted >> 8) & (halves[1] == wanted & 255)
    image.putalpha(Image.fromarray(np.where(is_transparent.all(-1), 0, 255).astype(np.uint8)))
    return image


def _complete_png_header(image: Image.Image) -> None:
    """Puts EXIF and texts behind the pixels, and the transparent colour in 8 bits, into `info`."""
    late = b"".join(_chunk(kind, body) for kind, body in _late_metadata(image))
    if late:
        header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
        stub = _PNG_SIGNATURE + header + late + _chunk(b"IDAT", b"")
        with Image.open(io.BytesIO(stub), formats=["PNG"]) as metadata:
            image.info.update(metadata.info)
    transparent: Any = image.info.get("transparency")
    samples = _samples(image)
    if isinstance(transparent, int) and samples in _GREY_STEPS:
        mask, step = _GREY_STEPS[samples]
        image.info["transparency"] = (transparent & mask) * step
    elif isinstance(transparent, tuple) and samples == "RGB":
        # Only as many bits count as a sample has.
        image.info["transparency"] = tuple(value & 255 for value in transparent)


def _late_metadata(image: Image.Image) -> Iterator[tuple[bytes, bytes]]:
    """Yields kind and content of the chunks of metadata behind a PNG's pixels."""
    file = _file(image)
    place, behind_pixels = file.tell(), False
    file.seek(len(_PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        behind_pixels |= kind == b"IDAT"
        if behind_pixels and kind in _PNG_METADATA:
            yield kind, file.read(length)
            length = 0
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(place)


def _file(image: Image.Image) -> BinaryIO:
    return image.fp  # type: ignore[attr-defined]


def _samples(image: Image.Image) -> str:
    """Returns how pixels are stored, by Pillow's name, e.g. "L;4"; empty once they are loaded."""
    tiles = image.tile  # type: ignore[attr-defined]
    return str(tiles[0][3]) if tiles else ""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
