"""What is known of a picture after it was opened once, and opening many of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import imagehash
import numpy as np
from PIL import Image

from apparel_embed.common.progress import progress_bar
from apparel_embed.data.picture_pool import image_path, run_tasks
from apparel_embed.data.pictures import (
    Box,
    OpenedPicture,
    PictureSettings,
    RejectedPicture,
    open_picture,
    read_picture_file,
)

# Of the picture that everything is worked out from: several times finer than the hash sees.
OPENED_SIDE = 128
THUMBNAIL_SIDE = 96
# The perceptual hash has 256 bits: on photographs of garments 64 were alike for different ones.
_HASH_SIDE = 16
HASH_WORDS = _HASH_SIDE**2 // 64
# Colours are compared part by part.
PARTS = 8
_THUMBNAIL_QUALITY = 85
_PICTURES_PER_TASK = 16


@dataclasses.dataclass(frozen=True)
class Asked:
    """A picture to open.

    Attributes:
      image: as in the manifest.
      box: x_min, y_min, x_max, y_max in pixels, or None.
      thumbnail: whether one is wanted.
    """

    image: str
    box: Box | None
    thumbnail: bool = False


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of a picture that could be opened.

    Attributes:
      format: of the file, by Pillow's name.
      size: width and height of the whole upright picture in pixels.
      crop_size: the same of what is kept of it.
      overhang: pixels by which the box reaches beyond the picture; 0 without a box.
      content: 16 bytes, the same for the same file cropped alike.
      outlines: uint64 [HASH_WORDS], the perceptual hash; it hardly sees colours.
      colours: uint8 [PARTS, PARTS, 3], mean colours of the parts of the picture.
      contrast: standard deviation of the pixels in the channel where it is largest, 0 to 128.
      thumbnail: JPEG if one was wanted, else empty.
    """

    format: str
    size: tuple[int, int]
    crop_size: tuple[int, int]
    overhang: float
    content: bytes
    outlines: np.ndarray
    colours: np.ndarray
    contrast: float
    thumbnail: bytes


def look_at(picture: Asked, directory: str | os.PathLike[str], settings: PictureSettings) -> Seen:
    """Opens a picture, crops it as prepare does, and returns what is known of it then.

    Args:
      picture: which one.
      directory: where relative paths begin.
      settings: as in prepare, but for the side and the quality.

    Raises:
      RejectedPicture: it cannot be used.
    """
    file = read_picture_file(image_path(picture.image, directory))
    opened = open_picture(file, settings, picture.box)
    image = opened.image
    pixels = np.asarray(image)
    left, top, right, bottom = opened.crop
    content = hashlib.blake2b(file, digest_size=16)
    content.update(np.array(opened.crop, "<i8").tobytes())
    # A filter that weighs what lies at the edge of a part: else a picture of another size differs.
    parts = image.resize((PARTS, PARTS), Image.Resampling.BILINEAR)
    return Seen(
        format=opened.format,
        size=opened.size,
        crop_size=(right - left, bottom - top),
        overhang=_overhang(opened, picture.box),
        content=content.digest(),
        outlines=np.packbits(imagehash.phash(image, hash_size=_HASH_SIDE).hash).view(np.uint64),
        colours=np.asarray(parts),
        contrast=float(pixels.std(axis=(0, 1)).max()),
        thumbnail=_thumbnail(image) if picture.thumbnail else b"",
    )


def look_at_all(
    pictures: Iterable[Asked],
    total: int,
    directory: str | os.PathLike[str],
    settings: PictureSettings,
    processes: int = 0,
) -> Iterator[Seen | str]:
    """Opens pictures by several processes, with a progress bar.

    Args:
      pictures: which ones.
      total: how many.
      directory: where relative paths begin.
      settings: as in prepare, but for the side and the quality.
      processes: how many, 0 for one per core.

    Yields:
      What is known of each, or the reason why it cannot be used, in their order.

    Raises:
      UserError: a process died.
    """
    rest = iter(pictures)
    tasks = iter(lambda: list(itertools.islice(rest, _PICTURES_PER_TASK)), [])
    work = functools.partial(_look_at_task, settings, str(directory))
    stream = run_tasks(
        work, tasks, processes, if_killed="try fewer --processes or a lower --max_pixels"
    )
    bar = progress_bar(total=total, what="inspect", unit="pictures")
    with bar, contextlib.closing(stream) as results:
        for result in results:
            yield result
            bar.update()


def _look_at_task(
    settings: PictureSettings, directory: str, pictures: Sequence[Asked]
) -> list[Seen | str]:
    """Returns what is known of each picture. Runs in the workers."""
    results: list[Seen | str] = []
    for picture in pictures:
        try:
            results.append(look_at(picture, directory, settings))
        except RejectedPicture as error:
            results.append(str(error))
    return results


def _overhang(opened: OpenedPicture, box: Box | None) -> float:
    """Returns by how many pixels a box reaches beyond its picture."""
    if box is None:
        return 0.0
    (width, height), (x_min, y_min, x_max, y_max) = opened.size, box
    return float(max(0, -x_min, -y_min, x_max - width, y_max - height))


def _thumbnail(image: Image.Image) -> bytes:
    """Returns the picture as a small JPEG."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_THUMBNAIL_QUALITY)
    return file.getvalue()
