"""Checks of single images: unusable or odd files; counts of formats, sizes and shapes."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.data.inspection.examine import OPENED_SIDE, Opened
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding, found

# Pixels; boxes may be rounded up to whole pixels.
_OVERHANG = 1.0
_MISSING = "no such file"
# Ratio of the longer to the shorter side.
_LONG_SHAPE = 4.0
_SIDE_CLASSES = (1, 64, 128, 256, 512, 1024, 2048, 4096)
# Width divided by height.
_SHAPE_CLASSES = (0, 0.25, 0.5, 0.7, 0.9, 1.1, 1.5, 2, 4)


def check_images(opened: Opened, min_side: int) -> Iterator[Finding]:
    """Yields findings about single images.

    Args:
      opened: the images.
      min_side: a cropped image is small if its longer side has fewer pixels.
    """
    yield from _check_unusable(opened)
    looks = opened.looks
    sides = looks["crop_size"].max(axis=1)
    shape = sides / np.maximum(looks["crop_size"].min(axis=1), 1)
    for code, severity, odd, what, advice in (
        (
            "box_beyond_image",
            WARNING,
            looks["overhang"] > _OVERHANG,
            "with a box that extends beyond the image.",
            "Check that boxes are in pixels of the upright image at full size.",
        ),
        (
            "small_images",
            WARNING,
            sides < min_side,
            f"whose longer side, cropped, has fewer than {min_side} pixels.",
            "Find larger images, or train at a small --image_size.",
        ),
        (
            "long_images",
            NOTE,
            shape > _LONG_SHAPE,
            f"more than {_LONG_SHAPE:g} times as high as wide, or as wide as high.",
            "Check that each shows a single garment.",
        ),
        (
            "blank_images",
            WARNING,
            opened.is_blank,
            f"of a single colour when reduced to {OPENED_SIDE} pixels.",
            "Check whether they have fine stripes. If not, remove them: many are placeholders "
            "for images that could not be loaded.",
        ),
    ):
        places = np.flatnonzero(opened.is_usable & odd)
        details = [
            f"by {look['overhang']:.0f} px of {_size(look['size'])}"
            if code == "box_beyond_image"
            else _size(look["crop_size"])
            for look in looks[places]
        ]
        rows = opened.rows[places]
        yield from found(
            code, severity, len(rows), "image", what, advice, rows=rows, details=details
        )


def _check_unusable(opened: Opened) -> Iterator[Finding]:
    """Yields findings about missing and broken images."""
    total = len(opened.rows)
    places = np.array(sorted(opened.reasons), np.int64)
    reasons = np.array([opened.reasons[place] for place in places.tolist()], object)
    missing = reasons == _MISSING
    for code, chosen, what, advice in (
        ("missing_images", missing, "missing", "Check the paths in column image."),
        ("broken_images", ~missing, "broken", "Replace or remove them."),
    ):
        count = int(chosen.sum())
        if count:
            yield Finding(
                code,
                # If half of the images fail, the paths are probably wrong.
                ERROR if count * 2 >= total else WARNING,
                count,
                f"{count:,} of {counted(total, 'image')} {'is' if count == 1 else 'are'} {what}: "
                "prepare_dataset leaves them out.",
                advice,
                rows=opened.rows[places[chosen]],
                details=reasons[chosen].tolist(),
            )


def _size(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]} px"


def count_reasons(opened: Opened) -> dict[str, int]:
    """Returns the number of images by kind of reason, the most frequent first."""
    return _most_first(map(_kind, opened.reasons.values()))


def count_formats(opened: Opened) -> dict[str, int]:
    """Returns the number of images by file format, the most frequent first."""
    formats = opened.looks["format"][opened.is_usable].astype(str)
    return _most_first(formats.tolist())


def count_sides(opened: Opened) -> dict[str, int]:
    """Returns a histogram of the longer sides of the cropped images, in pixels."""
    return _histogram(opened.looks["crop_size"][opened.is_usable].max(axis=1), _SIDE_CLASSES)


def count_shapes(opened: Opened) -> dict[str, int]:
    """Returns a histogram of the width-to-height ratios of the cropped images."""
    width, height = opened.looks["crop_size"][opened.is_usable].T
    return _histogram(width / height, _SHAPE_CLASSES)


def _most_first(names: Iterable[str]) -> dict[str, int]:
    counts = collections.Counter(names)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _kind(reason: str) -> str:
    """Returns the kind of a reason: its text without numbers and details."""
    head = reason.split(": ")[0]
    if head.startswith("box "):
        return "box outside the image"
    return "too many pixels" if "pixels are more than" in head else head


def _histogram(values: np.ndarray, classes: Sequence[float]) -> dict[str, int]:
    """Returns counts of values per class, given by its lowest value, without empty end classes."""
    counts = np.bincount(
        np.searchsorted(classes, values, side="right") - 1, minlength=len(classes)
    ).tolist()
    names = [f"{low:g} to {high:g}" for low, high in zip(classes, classes[1:])]
    names.append(f"{classes[-1]:g} or more")
    filled = np.flatnonzero(counts).tolist()
    return {names[i]: counts[i] for i in range(filled[0], filled[-1] + 1)} if filled else {}
