"""The pictures of a manifest, opened once: which can be used, and how large they are."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from apparel_embed.common.text import counted
from apparel_embed.data.columns import first_alike
from apparel_embed.data.inspection.copies import Looks
from apparel_embed.data.inspection.examine import HASH_WORDS, OPENED_SIDE, PARTS, Asked, Seen
from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING, Finding
from apparel_embed.data.manifest import BOX_COLUMNS

# Compressed white paper has less, a thread on it has more.
_BLANK_CONTRAST = 3.0
# A box rounded up to whole pixels does no harm.
_OVERHANG = 1.0
_MISSING = "no such file"
_ROWS_AT_ONCE = 1 << 14
# How often the longer side is longer.
_LONG_SHAPE = 4.0
SIDE_CLASSES = (1, 64, 128, 256, 512, 1024, 2048, 4096)
# Width by height.
SHAPE_CLASSES = (0, 0.25, 0.5, 0.7, 0.9, 1.1, 1.5, 2, 4)


def distinct_pictures(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows that show the same file cropped by the same box as an earlier one.

    Args:
      table: a manifest as `read_manifest` returns it.

    Returns:
      Rows of pictures not seen before, int64, ascending; and for every row the first row of its
      picture, int64 [n].
    """
    first = first_alike(table, ["image", *BOX_COLUMNS])
    return np.flatnonzero(first == np.arange(len(first))), first


def ask_for(table: pa.Table, rows: np.ndarray, thumbnails: Iterable[int]) -> Iterator[Asked]:
    """Yields what pictures to open, in bounded memory.

    Args:
      table: the manifest.
      rows: int64, ascending: which rows of it.
      thumbnails: rows of which a thumbnail is wanted.
    """
    wanted = set(thumbnails)
    table = table.select(["image", *BOX_COLUMNS])
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        # Of a slice: to take rows from the whole table would copy it each time.
        part = table.slice(some[0], some[-1] - some[0] + 1).take(pa.array(some - some[0]))
        columns = [column.to_pylist() for column in part.columns]
        for row, image, *box in zip(some.tolist(), *columns):
            yield Asked(image, None if box[0] is None else tuple(box), row in wanted)


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """What is known of m pictures.

    Attributes:
      rows: int64 [m], ascending: the row of each in the manifest.
      reasons: of those that cannot be used, by place.
      formats: number of pictures of each format.
      sizes: int32 [m, 2], width and height of the whole picture; 0 where it cannot be used.
      crop_sizes: int32 [m, 2], the same of what is kept of it.
      overhangs: float32 [m], pixels by which the box reaches beyond the picture.
      looks: how they look.
      thumbnails: JPEG by row, of those that were wanted and can be used.
    """

    rows: np.ndarray
    reasons: dict[int, str]
    formats: dict[str, int]
    sizes: np.ndarray
    crop_sizes: np.ndarray
    overhangs: np.ndarray
    looks: Looks
    thumbnails: dict[int, bytes]

    @classmethod
    def collect(cls, rows: np.ndarray, results: Iterable[Seen | str]) -> Opened:
        """Collects what is known of pictures in arrays, as it comes.

        Args:
          rows: int64 [m], ascending.
          results: of each picture.
        """
        total = len(rows)
        found = cls(
            rows=rows,
            reasons={},
            formats={},
            sizes=np.zeros((total, 2), np.int32),
            crop_sizes=np.zeros((total, 2), np.int32),
            overhangs=np.zeros(total, np.float32),
            looks=Looks(
                rows=rows,
                content=np.zeros((total, 2), np.uint64),
                outlines=np.zeros((total, HASH_WORDS), np.uint64),
                colours=np.zeros((total, PARTS, PARTS, 3), np.uint8),
                # What cannot be used has nothing to compare, either.
                is_blank=np.ones(total, bool),
            ),
            thumbnails={},
        )
        formats: collections.Counter[str] = collections.Counter()
        known_reasons: dict[str, str] = {}
        for place, result in enumerate(results):
            if isinstance(result, str):
                # Millions of missing pictures share one text.
                found.reasons[place] = known_reasons.setdefault(result, result)
                continue
            formats[result.format] += 1
            found.sizes[place] = result.size
            found.crop_sizes[place] = result.crop_size
            found.overhangs[place] = result.overhang
            found.looks.content[place] = np.frombuffer(result.content, np.uint64)
            found.looks.outlines[place] = result.outlines
            found.looks.colours[place] = result.colours
            found.looks.is_blank[place] = result.contrast < _BLANK_CONTRAST
            if result.thumbnail:
                found.thumbnails[int(rows[place])] = result.thumbnail
        found.formats.update(sorted(formats.items(), key=lambda entry: (-entry[1], entry[0])))
        return found

    @property
    def usable(self) -> np.ndarray:
        """Which pictures can be used, bool [m]."""
        return self.sizes[:, 0] > 0

    def count_reasons(self) -> dict[str, int]:
        """Returns how often each reason is, the most frequent first; numbers in it left out."""
        counts = collections.Counter(_kind(reason) for reason in self.reasons.values())
        return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))

    def count_sides(self) -> dict[str, int]:
        """Returns how many pictures, cropped, have a longer side of so many pixels."""
        sides = self.crop_sizes[self.usable].max(axis=1)
        return _histogram(sides, SIDE_CLASSES)

    def count_shapes(self) -> dict[str, int]:
        """Returns how many pictures, cropped, have so much width by height."""
        width, height = self.crop_sizes[self.usable].T
        return _histogram(width / height, SHAPE_CLASSES)


def check_pictures(opened: Opened, min_side: int) -> Iterator[Finding]:
    """Yields what is to be said of pictures one by one.

    Args:
      opened: what is known of them.
      min_side: a picture, cropped, whose longer side has fewer pixels is small.
    """
    yield from _check_unusable(opened)
    sides = opened.crop_sizes.max(axis=1)
    shape = sides / np.maximum(opened.crop_sizes.min(axis=1), 1)
    beyond = opened.overhangs > _OVERHANG
    yield from _check_odd(
        opened,
        "box_beyond_picture",
        WARNING,
        beyond,
        "with a box that reaches beyond the picture.",
        "Check the boxes: pixels of the upright picture at its full size.",
        [
            f"by {overhang:.0f} px of {_size(size)}"
            for overhang, size in zip(opened.overhangs[beyond], opened.sizes[beyond])
        ],
    )
    yield from _check_odd(
        opened,
        "small_pictures",
        WARNING,
        sides < min_side,
        f"whose longer side, cropped, has fewer than {min_side} pixels.",
        "Find larger ones, or train at a small --image_size.",
    )
    yield from _check_odd(
        opened,
        "long_pictures",
        NOTE,
        shape > _LONG_SHAPE,
        f"more than {_LONG_SHAPE:g} times as long as wide, or as wide as long.",
        "Look whether they show one garment.",
    )
    yield from _check_odd(
        opened,
        "blank_pictures",
        WARNING,
        opened.looks.is_blank,
        f"of one colour, as far as {OPENED_SIDE} pixels a side show.",
        "Look whether they have fine stripes. If not, remove them; often they stand for pictures "
        "that could not be loaded.",
    )


def _check_unusable(opened: Opened) -> Iterator[Finding]:
    """Yields what is to be said of pictures that cannot be used."""
    total = len(opened.rows)
    places = np.array(sorted(opened.reasons), np.int64)
    reasons = np.array([opened.reasons[place] for place in places.tolist()], object)
    missing = reasons == _MISSING
    for code, chosen, what, advice in (
        ("missing_pictures", missing, "missing", "Check the paths in column image."),
        ("broken_pictures", ~missing, "broken", "Replace or remove them."),
    ):
        count = int(chosen.sum())
        if count:
            yield Finding(
                code,
                # Half of them: likely a wrong path, and not what was meant to be trained on.
                ERROR if count * 2 >= total else WARNING,
                count,
                f"{count:,} of {counted(total, 'picture')} {'is' if count == 1 else 'are'} {what}: "
                "prepare leaves them out.",
                advice,
                rows=opened.rows[places[chosen]],
                details=reasons[chosen].tolist(),
            )


def _check_odd(
    opened: Opened,
    code: str,
    severity: str,
    odd: np.ndarray,
    what: str,
    advice: str,
    details: Sequence[str] | None = None,
) -> Iterator[Finding]:
    """Yields what is to be said of pictures that can be used but are odd, if there are any.

    Args:
      opened: what is known of all pictures.
      code: of the finding.
      severity: of the finding.
      odd: bool [m], whatever it says of pictures that cannot be used.
      what: follows their number.
      advice: of the finding.
      details: of each odd picture; by default its size, cropped.
    """
    found = np.flatnonzero(opened.usable & odd)
    if len(found):
        yield Finding(
            code,
            severity,
            len(found),
            f"{counted(len(found), 'picture')} {what}",
            advice,
            rows=opened.rows[found],
            details=details or [_size(size) for size in opened.crop_sizes[found]],
        )


def _size(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]} px"


def _kind(reason: str) -> str:
    """Returns what pictures rejected for the same cause have in common."""
    head = reason.split(": ")[0]
    if head.startswith("box "):
        return "box outside the picture"
    return "too many pixels" if "pixels are more than" in head else head


def _histogram(values: np.ndarray, classes: Sequence[float]) -> dict[str, int]:
    """Returns how many values are in each class, given by its least; from the first to the last."""
    numbers = np.searchsorted(classes, values, side="right") - 1
    counts = np.bincount(numbers, minlength=len(classes))
    names = [f"{low:g} to {high:g}" for low, high in zip(classes, classes[1:])]
    names.append(f"{classes[-1]:g} or more")
    filled = np.flatnonzero(counts)
    if not len(filled):
        return {}
    return {names[i]: int(counts[i]) for i in range(filled[0], filled[-1] + 1)}
