"""What Pillow leaves open: metadata behind the pixels, transparent colours, small first frames."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
# Pillow scales grey of few bits to 8, but not the transparent grey: the mask of the sample's bits,
# and what one step becomes.
_GREY_STEPS = {"L;2": (3, 85), "L;4": (15, 17), "L": (255, 1)}


def complete_header(image: Image.Image) -> None:
    """Puts into `image.info` what Pillow would only find by decoding, or gets wrong.

    That is EXIF and texts behind the pixels, and the transparent colour in 8-bit samples.

    Args:
      image: one that has been opened and not loaded.
    """
    if image.format != "PNG":
        return
    late = b"".join(_chunk(kind, body) for kind, body in _late_metadata(image))
    if late:
        header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
        stub = _SIGNATURE + header + late + _chunk(b"IDAT", b"")
        with Image.open(io.BytesIO(stub), formats=["PNG"]) as metadata:
            image.info.update(metadata.info)
    transparent, samples = image.info.get("transparency"), _samples(image)
    if isinstance(transparent, int) and samples in _GREY_STEPS:
        mask, step = _GREY_STEPS[samples]
        image.info["transparency"] = (transparent & mask) * step
    elif isinstance(transparent, tuple) and samples == "RGB":
        # Only as many bits count as a sample has.
        image.info["transparency"] = tuple(value & 255 for value in transparent)


def load(image: Image.Image) -> Image.Image:
    """Decodes an image, and returns it with an alpha channel where Pillow does not say all.

    Args:
      image: one that has been opened, completed by `complete_header`, and not loaded.
    """
    if image.format == "GIF":
        return _load_first_frame(image)
    is_masked = _samples(image) == "RGB;16B" and "transparency" in image.info
    if image.format == "PNG" and is_masked:
        return _load_masked(image)
    image.load()
    return image


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


def _late_metadata(image: Image.Image) -> Iterator[tuple[bytes, bytes]]:
    """Yields kind and content of the chunks of metadata behind the pixels."""
    file = _file(image)
    place, behind_pixels = file.tell(), False
    file.seek(len(_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        behind_pixels |= kind == b"IDAT"
        if behind_pixels and kind in _METADATA:
            yield kind, file.read(length)
            length = 0
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(place)


def _file(image: Image.Image) -> BinaryIO:
    """Returns the file of an image that has not been loaded."""
    file: BinaryIO = image.fp  # type: ignore[attr-defined]
    return file


def _samples(image: Image.Image) -> str:
    """Returns how pixels are stored, by Pillow's name, e.g. "L;4"; empty once they are loaded."""
    tiles = image.tile  # type: ignore[attr-defined]
    return str(tiles[0][3]) if tiles else ""


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk with length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
