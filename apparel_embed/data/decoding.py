"""Decodes image files to upright sRGB pixels, where Pillow alone is not exact.

Pillow misses metadata after the pixels, transparent colours with few or many bits and first frames
smaller than their canvas, and it clips 16-bit values.
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

# Pillow opens more formats, some by starting other programs (EPS). Shops use these, and phones
# write HEIF (.heic).
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
# Pillow scales grey values of few bits to 8, but not the transparent grey. By kind of sample: the
# mask of its bits, and the 8-bit size of one step.
_GREY_STEPS = {"L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}


class RejectedImage(Exception):
    """An image that cannot be used; the message is the reason, in one line."""


def open_image(file: io.BytesIO | Path) -> Image.Image:
    """Opens an image and reads only its metadata, wherever it is in the file."""
    if "HEIF" not in Image.OPEN:
        pi_heif.register_heif_opener()
    image = Image.open(file, formats=FORMATS)
    if image.format == "PNG":
        _complete_png_header(image)
    return image


def orientation_of(image: Image.Image) -> int:
    """Returns the EXIF or XMP orientation, 1 to 8; 1 if it is missing or cannot be read."""
    try:
        # For a PNG, Pillow's own method would decode all pixels first; `open_image` has already
        # read the metadata after them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Pillow's EXIF parser raises many kinds of errors; the image itself may be intact.
        return 1
    return value if value in _ORIENTATION_METHODS else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Returns width and height of an opened image once turned upright."""
    width, height = image.size
    # Pillow swaps the sides of a TIFF according to its tag, but not according to its XMP.
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    is_turned = ExifTags.Base.Orientation in tags
    return (height, width) if orientation_of(image) >= 5 and not is_turned else (width, height)


def load_upright(image: Image.Image) -> Image.Image:
    """Decodes an opened image and turns it upright, adding an alpha channel Pillow would miss."""
    if image.format == "GIF":
        loaded = _load_first_frame(image)
    elif image.format == "PNG" and _samples(image) == "RGB;16B" and "transparency" in image.info:
        loaded = _load_masked(image)
    else:
        image.load()
        loaded = image
    # Not earlier: decoding turns some formats upright and removes their orientation.
    method = _ORIENTATION_METHODS.get(orientation_of(image))
    return loaded if method is None else loaded.transpose(method)


def to_resizable(image: Image.Image) -> Image.Image:
    """Converts an image to a mode that can be resized smoothly: L, RGB, RGBA or CMYK."""
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
    """Returns an image in sRGB on a white background, without metadata.

    Args:
      image: image of mode L, RGB, RGBA or CMYK.
      profile: its ICC profile, None for sRGB; one that is broken or does not fit is ignored.
    """
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    opaque = image if alpha is None else image.convert("RGB")
    converted = None
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
            # It returns None if it changed the image in place.
            converted = ImageCms.profileToProfile(opaque, source, srgb, outputMode="RGB") or opaque
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    canvas = Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(converted or opaque.convert("RGB"), mask=alpha)
    return canvas


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit grey to 8 bits; Pillow itself would clip at 255."""
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
    """Returns a GIF's first frame; the rest of the canvas is transparent."""
    extent = image.tile[0][1]  # type: ignore[attr-defined]
    image.load()
    if tuple(extent) == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size)
    canvas.paste(image.convert("RGBA").crop(extent), extent[:2])
    return canvas


def _load_masked(image: Image.Image) -> Image.Image:
    """Returns a PNG with 16-bit colours, one of them transparent, as RGBA.

    Pillow keeps the upper 8 of 16 bits, in which different colours may be the same.
    """
    file = _file(image)
    place = file.tell()
    file.seek(0)
    with Image.open(io.BytesIO(file.read()), formats=["PNG"]) as lower:
        file.seek(place)
        # In the other byte order, Pillow keeps the lower 8 bits.
        lower.tile = [lower.tile[0]._replace(args="RGB;16L")]
        halves = np.asarray(image), np.asarray(lower)
    wanted = np.array(image.info.pop("transparency"))
    is_transparent = (halves[0] == wanted >> 8) & (halves[1] == wanted & 255)
    image.putalpha(Image.fromarray(np.where(is_transparent.all(-1), 0, 255).astype(np.uint8)))
    return image


def _complete_png_header(image: Image.Image) -> None:
    """Adds EXIF and texts after the pixels, and the transparent colour in 8 bits, to `info`."""
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
        # Only the bits of a sample count.
        image.info["transparency"] = tuple(value & 255 for value in transparent)


def _late_metadata(image: Image.Image) -> Iterator[tuple[bytes, bytes]]:
    """Yields type and content of the metadata chunks after a PNG's pixels."""
    file = _file(image)
    place, after_pixels = file.tell(), False
    file.seek(len(_PNG_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        after_pixels |= kind == b"IDAT"
        if after_pixels and kind in _PNG_METADATA:
            yield kind, file.read(length)
            length = 0
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(place)


def _file(image: Image.Image) -> BinaryIO:
    return image.fp  # type: ignore[attr-defined]


def _samples(image: Image.Image) -> str:
    """Returns Pillow's name of how pixels are stored, e.g. "L;4"; "" once they are loaded."""
    tiles = image.tile  # type: ignore[attr-defined]
    return str(tiles[0][3]) if tiles else ""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
