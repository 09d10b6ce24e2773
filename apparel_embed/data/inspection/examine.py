"""What is known of an image after it was opened once, and opening many of them."""

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

# Of the image that everything is worked out from: several times finer than the hash sees.
OPENED_SIDE = 128
THUMBNAIL_SIDE = 96
_THUMBNAIL_QUALITY = 85
# The perceptual hash has 256 bits: on photographs of garments 64 were alike for different ones.
_HASH_SIDE = 16
# Colours are compared part by part.
_PARTS = 8
# Compressed white paper has less contrast, a thread on it has more.
_BLANK_CONTRAST = 3.0
_IMAGES_PER_TASK = 16

LOOK = np.dtype(
    [
        # Of the file, by Pillow's name.
        ("format", "S16"),
        # Width and height of the whole upright image, and of what is kept of it, in pixels.
        ("size", np.int32, 2),
        ("crop_size", np.int32, 2),
        # Pixels by which the box reaches beyond the image; 0 without a box.
        ("overhang", np.float32),
        # The same for the same file cropped alike.
        ("content", np.uint64, 2),
        # The perceptual hash; it hardly sees colours.
        ("outlines", np.uint64, _HASH_SIDE**2 // 64),
        # Mean colours of the parts of the image.
        ("colours", np.uint8, (_PARTS, _PARTS, 3)),
        # Standard deviation of the pixels in the channel where it is largest, 0 to 128.
        ("contrast", np.float64),
    ]
)
"""What is kept of an image that could be opened; all 0 of one that could not."""

_Result = TypeVar("_Result")


Asked = tuple[str, Optional[Box]]
"""An image to open: its name in the manifest, and its box in pixels or None."""


def distinct_images(table: pa.Table) -> np.ndarray:
    """Returns for every row of a manifest the first that has the same file and box, int64 [n]."""
    return first_alike(table, ["image", *BOX_COLUMNS])


def ask_for(table: pa.Table, rows: np.ndarray) -> Iterator[list[Asked]]:
    """Yields what images to open, some at a time.

    Args:
      table: the manifest.
      rows: int64, ascending: which rows of it.
    """
    table = table.select(["image", *BOX_COLUMNS])
    for start in range(0, len(rows), _IMAGES_PER_TASK):
        some = rows[start : start + _IMAGES_PER_TASK]
        # Of a slice: to take rows from the whole table would copy it each time.
        part = table.slice(some[0], some[-1] - some[0] + 1).take(pa.array(some - some[0]))
        columns = zip(*(column.to_pylist() for column in part.columns))
        yield [(image, None if box[0] is None else tuple(box)) for image, *box in columns]


def look_at(asked: Asked, directory: Path, settings: ImageSettings) -> np.ndarray:
    """Opens an image, crops it as prepare does, and returns what is known of it then: a LOOK.

    Args:
      asked: which one.
      directory: where relative paths begin.
      settings: as in prepare, but for the side and the quality.

    Raises:
      RejectedImage: it cannot be used.
    """
    name, box = asked
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
    # A filter that weighs what lies at the edge of a part: else an image of another size differs.
    look["colours"] = np.asarray(image.resize((_PARTS, _PARTS), Image.Resampling.BILINEAR))
    look["contrast"] = np.asarray(image).std(axis=(0, 1)).max()
    return look


def make_thumbnail(asked: Asked, directory: Path, settings: ImageSettings) -> bytes:
    """Returns an image, opened as `look_at` does, as a small JPEG; raises what that raises."""
    name, box = asked
    file = read_image_file(image_path(name, directory))
    image = open_upright(file, settings, box).image
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    small = io.BytesIO()
    image.save(small, "JPEG", quality=_THUMBNAIL_QUALITY)
    return small.getvalue()


def open_all(
    work: Callable[[Asked, Path, ImageSettings], _Result],
    table: pa.Table,
    rows: np.ndarray,
    config: InspectConfig,
    processes: int,
    *,
    threads: bool = False,
) -> Iterator[_Result | str]:
    """Opens images by several processes, with a progress bar.

    Args:
      work: `look_at` or `make_thumbnail`.
      table: the manifest.
      rows: int64, ascending: which rows of it.
      config: where the manifest is, and how images are cropped.
      processes: how many, 0 for one per core.
      threads: take threads instead, which start sooner.

    Yields:
      What `work` returns for each, or the reason why it cannot be used, in their order.

    Raises:
      UserError: a process died.
    """
    settings = ImageSettings(
        max_side=OPENED_SIDE, crop_margin=config.crop_margin, max_pixels=config.max_pixels
    )
    stream = run_tasks(
        functools.partial(_open_some, work, Path(config.manifest).parent, settings),
        ask_for(table, rows),
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
    work: Callable[[Asked, Path, ImageSettings], _Result],
    directory: Path,
    settings: ImageSettings,
    images: Sequence[Asked],
) -> list[_Result | str]:
    """Returns what is known of each image. Runs in the workers."""
    results: list[_Result | str] = []
    for image in images:
        try:
            results.append(work(image, directory, settings))
        except RejectedImage as error:
            results.append(str(error))
    return results


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """What is known of m images.

    Attributes:
      rows: int64 [m], ascending: the row of each in the manifest.
      looks: LOOK [m].
      reasons: of those that cannot be used, by place.
    """

    rows: np.ndarray
    looks: np.ndarray
    reasons: dict[int, str]

    @classmethod
    def collect(cls, rows: np.ndarray, results: Iterable[np.ndarray | str]) -> Opened:
        """Collects what is known of images of these rows, as it comes."""
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
        """Which images can be used, bool [m]."""
        return self.looks["size"][:, 0] > 0

    @property
    def is_blank(self) -> np.ndarray:
        """On which nothing is to be seen, and so nothing to compare; also where unusable."""
        return self.looks["contrast"] < _BLANK_CONTRAST
