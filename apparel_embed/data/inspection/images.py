"""Image files that cannot be used or are odd, and how large they are."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.data.inspection.examine import OPENED_SIDE, Opened
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding, found

# A box rounded up to whole pixels does no harm.
_OVERHANG = 1.0
_MISSING = "no such file"
# How often the longer side is longer.
_LONG_SHAPE = 4.0
_SIDE_CLASSES = (1, 64, 128, 256, 512, 1024, 2048, 4096)
# Width by height.
_SHAPE_CLASSES = (0, 0.25, 0.5, 0.7, 0.9, 1.1, 1.5, 2, 4)


def check_images(opened: Opened, min_side: int) -> Iterator[Finding]:
    """Yields findings about images one by one.

    Args:
      opened: what is known of them.
      min_side: an image, cropped, whose longer side has fewer pixels is small.
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
            "with a box that reaches beyond the image.",
            "Check the boxes: pixels of the upright image at its full size.",
        ),
        (
            "small_images",
            WARNING,
            sides < min_side,
            f"whose longer side, cropped, has fewer than {min_side} pixels.",
            "Find larger ones, or train at a small --image_size.",
        ),
        (
            "long_images",
            NOTE,
            shape > _LONG_SHAPE,
            f"more than {_LONG_SHAPE:g} times as long as wide, or as wide as long.",
            "Look whether they show one garment.",
        ),
        (
            "blank_images",
            WARNING,
            opened.is_blank,
            f"of one colour, as far as {OPENED_SIDE} pixels a side show.",
            "Look whether they have fine stripes. If not, remove them; often they stand for "
            "images that could not be loaded.",
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
    """Yields findings about images that cannot be used."""
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
                # Half of them: likely a wrong path, and not what was meant to be trained on.
                ERROR if count * 2 >= total else WARNING,
                count,
                f"{count:,} of {counted(total, 'image')} {'is' if count == 1 else 'are'} {what}: "
                "prepare leaves them out.",
                advice,
                rows=opened.rows[places[chosen]],
                details=reasons[chosen].tolist(),
            )


def _size(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]} px"


def count_reasons(opened: Opened) -> dict[str, int]:
    """Returns how often each reason is, the most frequent first; numbers in it left out."""
    return _most_first(map(_kind, opened.reasons.values()))


def count_formats(opened: Opened) -> dict[str, int]:
    """Returns how many files have each format, the most frequent first."""
    formats = opened.looks["format"][opened.is_usable].astype(str)
    return _most_first(formats.tolist())


def count_sides(opened: Opened) -> dict[str, int]:
    """Returns how many images, cropped, have a longer side of so many pixels."""
    return _histogram(opened.looks["crop_size"][opened.is_usable].max(axis=1), _SIDE_CLASSES)


def count_shapes(opened: Opened) -> dict[str, int]:
    """Returns how many images, cropped, have so much width by height."""
    width, height = opened.looks["crop_size"][opened.is_usable].T
    return _histogram(width / height, _SHAPE_CLASSES)


def _most_first(names: Iterable[str]) -> dict[str, int]:
    counts = collections.Counter(names)
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def _kind(reason: str) -> str:
    """Returns what images rejected for the same cause have in common."""
    head = reason.split(": ")[0]
    if head.startswith("box "):
        return "box outside the image"
    return "too many pixels" if "pixels are more than" in head else head


def _histogram(values: np.ndarray, classes: Sequence[float]) -> dict[str, int]:
    """Returns how many values are in each class, given by its least; from the first to the last."""
    counts = np.bincount(
        np.searchsorted(classes, values, side="right") - 1, minlength=len(classes)
    ).tolist()
    names = [f"{low:g} to {high:g}" for low, high in zip(classes, classes[1:])]
    names.append(f"{classes[-1]:g} or more")
    filled = np.flatnonzero(counts).tolist()
    return {names[i]: counts[i] for i in range(filled[0], filled[-1] + 1)} if filled else {}
