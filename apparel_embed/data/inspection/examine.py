"""Opens images once each, in parallel, and records the data that the inspection needs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Optional, TypeVar

import imagehash
import numpy as np
import pyarrow as pa
from PIL import Image

from apparel_embed.common.progress import progress_bar
from apparel_embed.data.columns import first_alike
from apparel_embed.data.image_pool import image_path, run_tasks
from apparel_embed.data.images import (
    Box,
    ImageSettings,
    RejectedImage,
    open_upright,
    read_image_file,
)
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.manifest import BOX_COLUMNS

# Images are reduced to this side in pixels, several times finer than the hash resolves.
OPENED_SIDE = 128
THUMBNAIL_SIDE = 96
_THUMBNAIL_QUALITY = 85
# The perceptual hash has 256 bits: 64 bits were equal for photographs of different garments.
_HASH_SIDE = 16
# Colours are compared on a grid of 8 x 8 parts.
_PARTS = 8
# Compressed images of white paper are below this contrast, of a thread on it above.
_BLANK_CONTRAST = 3.0
_IMAGES_PER_TASK = 16

LOOK = np.dtype(
    [
        # Pillow's name of the file format.
        ("format", "S16"),
        # Width and height in pixels of the whole upright image, and of its crop.
        ("size", np.int32, 2),
        ("crop_size", np.int32, 2),
        # Pixels by which the box extends beyond the image; 0 without a box.
        ("overhang", np.float32),
        # A hash of the file's bytes and the crop.
        ("content", np.uint64, 2),
        # The perceptual hash; almost independent of colours.
        ("outlines", np.uint64, _HASH_SIDE**2 // 64),
        # Mean colours of the parts of the image.
        ("colours", np.uint8, (_PARTS, _PARTS, 3)),
        # Standard deviation of the pixels in the channel where it is largest, 0 to 128.
        ("contrast", np.float64),
    ]
)
"""The data of an opened image; all 0 if the image could not be opened."""

_Result = TypeVar("_Result")


ImageRequest = tuple[str, Optional[Box]]
"""An image to open: its name in the manifest, and its box in pixels or None."""


def distinct_images(table: pa.Table) -> np.ndarray:
    """Returns, for each row of a manifest, the first row with the same file and box, int64 [n]."""
    return first_alike(table, ["image", *BOX_COLUMNS])


def batch_requests(table: pa.Table, rows: np.ndarray) -> Iterator[list[ImageRequest]]:
    """Yields batches of images to open.

    Args:
      table: the manifest.
      rows: int64, ascending: the rows of the images.
    """
    table = table.select(["image", *BOX_COLUMNS])
    for start in range(0, len(rows), _IMAGES_PER_TASK):
        some = rows[start : start + _IMAGES_PER_TASK]
        # Slicing first avoids copying the whole table for each batch.
        part = table.slice(some[0], some[-1] - some[0] + 1).take(pa.array(some - some[0]))
        columns = zip(*(column.to_pylist() for column in part.columns))
        yield [(image, None if box[0] is None else tuple(box)) for image, *box in columns]


def look_at(request: ImageRequest, directory: Path, settings: ImageSettings) -> np.ndarray:
    """Opens an image, crops it as prepare does, and returns its LOOK.

    Args:
      request: the image.
      directory: the base of relative paths.
      settings: as in prepare, except side and quality.

    Raises:
      RejectedImage: the image cannot be used.
    """
    name, box = request
    file = read_image_file(image_path(name, directory))
    opened = open_upright(file, settings, box)
    image = opened.image
    left, top, right, bottom = opened.crop
    content = hashlib.blake2b(file, digest_size=16)
    content.update(np.array(opened.crop, "<i8").tobytes())
    look = np.zeros((), LOOK)
    look["format"] = opened.format
    look["size"] = opened.size
    look["crop_size"] = right - left, bottom - top
    if box:
        (width, height), (x_min, y_min, x_max, y_max) = opened.size, box
        look["overhang"] = max(0.0, -x_min, -y_min, x_max - width, y_max - height)
    look["content"] = np.frombuffer(content.digest(), np.uint64)
    bits = imagehash.phash(image, hash_size=_HASH_SIDE).hash
    look["outlines"] = np.packbits(bits).view(np.uint64)
    # Bilinear weights pixels at the edges of parts, so copies of other sizes have the same colours.
    look["colours"] = np.asarray(image.resize((_PARTS, _PARTS), Image.Resampling.BILINEAR))
    look["contrast"] = np.asarray(image).std(axis=(0, 1)).max()
    return look


def make_thumbnail(request: ImageRequest, directory: Path, settings: ImageSettings) -> bytes:
    """Returns a small JPEG of an image; takes and raises the same as `look_at`."""
    name, box = request
    file = read_image_file(image_path(name, directory))
    image = open_upright(file, settings, box).image
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=_THUMBNAIL_QUALITY)
    return small.getvalue()


def open_all(
    work: Callable[[ImageRequest, Path, ImageSettings], _Result],
    table: pa.Table,
    rows: np.ndarray,
    config: InspectConfig,
    processes: int,
    *,
    threads: bool = False,
) -> Iterator[_Result | str]:
    """Opens images in several processes, with a progress bar.

    Args:
      work: `look_at` or `make_thumbnail`.
      table: the manifest.
      rows: int64, ascending: the rows of the images.
      config: the manifest's path, and how images are cropped.
      processes: number of processes, 0 for one per core.
      threads: use threads instead, which start faster.

    Yields:
      The result of `work` for each image, or why the image cannot be used, in the order of rows.

    Raises:
      UserError: a process died.
    """
    settings = ImageSettings(
        max_side=OPENED_SIDE, crop_margin=config.crop_margin, max_pixels=config.max_pixels
    )
    stream = run_tasks(
        functools.partial(_open_some, work, Path(config.manifest).parent, settings),
        batch_requests(table, rows),
        processes,
        threads=threads,
        if_killed="try fewer --processes or a lower --max_pixels",
    )
    bar = progress_bar(total=len(rows), what="inspect", unit="images")
    with bar, contextlib.closing(stream) as results:
        for result in results:
            yield result
            bar.update()


def _open_some(
    work: Callable[[ImageRequest, Path, ImageSettings], _Result],
    directory: Path,
    settings: ImageSettings,
    images: Sequence[ImageRequest],
) -> list[_Result | str]:
    """Returns the result of `work`, or the error's text, for each image. Runs in the workers."""
    results: list[_Result | str] = []
    for image in images:
        try:
            results.append(work(image, directory, settings))
        except RejectedImage as error:
            results.append(str(error))
    return results


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """The data of m opened images.

    Attributes:
      rows: int64 [m], ascending: the manifest row of each image.
      looks: LOOK [m].
      reasons: why images cannot be used, by index in `rows`.
    """

    rows: np.ndarray
    looks: np.ndarray
    reasons: dict[int, str]

    @classmethod
    def collect(cls, rows: np.ndarray, results: Iterable[np.ndarray | str]) -> Opened:
        """Collects the results of `open_all` for the images of these rows."""
        looks = np.zeros(len(rows), LOOK)
        reasons: dict[int, str] = {}
        for place, result in enumerate(results):
            if isinstance(result, str):
                # Millions of missing images share one text.
                reasons[place] = sys.intern(result)
            else:
                looks[place] = result
        return cls(rows, looks, reasons)

    @property
    def is_usable(self) -> np.ndarray:
        """Whether each image can be used, bool [m]."""
        return self.looks["size"][:, 0] > 0

    @property
    def is_blank(self) -> np.ndarray:
        """Whether each image is blank or unusable, and so not to be compared, bool [m]."""
        return self.looks["contrast"] < _BLANK_CONTRAST
