"""The labels of a manifest's rows as numbers, and counts of their items and images."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.data.columns import codes_of
from apparel_embed.data.manifest import SPLITS, UNLABELLED

EVALUATED = ("val", "test")
# The use of a split: 0 to train, 1 to select weights, 2 to evaluate. Unlabelled images are trained
# on like those of train.
_STAGES = {"train": 0, UNLABELLED: 0, "val": 1, "test": 2}
# Classes of the number of images per item, given by their lowest numbers.
_CLASSES = (1, 2, 3, 4, 5, 6, 11, 21, 51, 101)
_CLASS_NAMES = ("1", "2", "3", "4", "5", "6-10", "11-20", "21-50", "51-100", "101+")


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """The labels of n rows.

    Attributes:
      verticals: names of the verticals, sorted.
      vertical: int32 [n], index of the row's vertical.
      split: int8 [n], index of the row's split in SPLITS.
      items: names of the items in order of their first rows; a blank name is not an item.
      item: int32 [n], index of the row's item; -1 if unknown.
      first_rows: int64 [items], the first row of each name in `items`, blank or not.
      is_query: bool [n].
      is_gallery: bool [n].
    """

    verticals: tuple[str, ...]
    vertical: np.ndarray
    split: np.ndarray
    items: pa.Array
    item: np.ndarray
    first_rows: np.ndarray
    is_query: np.ndarray
    is_gallery: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> Labels:
        """Returns the labels of a manifest returned by `read_manifest`."""
        vertical, names = codes_of(table["vertical"])
        verticals = names.to_pylist()
        places = np.argsort(np.argsort(np.array(verticals, dtype=object)))
        split, splits = codes_of(table["split"])
        split_places = np.array([SPLITS.index(name) for name in splits.to_pylist()], np.int8)
        role, roles = codes_of(table["role"])
        # The names of 10 million items exceed 32-bit offsets.
        item, items = codes_of(table["item_id"].cast(pa.large_string()))
        blank = pc.equal(pc.utf8_trim_whitespace(items), "").to_numpy(zero_copy_only=False)
        return cls(
            verticals=tuple(sorted(verticals)),
            vertical=places.astype(np.int32)[vertical],
            split=split_places[split],
            items=items,
            item=np.where(blank[item], -1, item).astype(np.int32),
            first_rows=first_rows(item),
            is_query=np.array([name != "gallery" for name in roles.to_pylist()])[role],
            is_gallery=np.array([name != "query" for name in roles.to_pylist()])[role],
        )

    def __len__(self) -> int:
        return len(self.vertical)

    @property
    def stage(self) -> np.ndarray:
        """The use of each row: 0 to train, 1 to select weights, 2 to evaluate; int8 [n]."""
        return np.array([_STAGES[name] for name in SPLITS], np.int8)[self.split]

    @functools.cached_property
    def images_of_items(self) -> np.ndarray:
        """Number of rows of each item, int64 [items]; 0 for a blank name."""
        return np.bincount(self.item[self.item >= 0], minlength=len(self.items))

    @functools.cached_property
    def known_items(self) -> np.ndarray:
        """Indices of the items whose names are not blank, int64."""
        return np.flatnonzero(self.images_of_items)

    @functools.cached_property
    def is_answered(self) -> np.ndarray:
        """Whether each row is a query with another gallery image of its item, bool [n].

        An item is in one split only, so that image is in the row's split.
        """
        known = self.item >= 0
        gallery = np.bincount(self.item[known & self.is_gallery], minlength=len(self.items))
        others = gallery[self.item] - self.is_gallery
        return known & self.is_query & (others > 0)


def first_rows(codes: np.ndarray) -> np.ndarray:
    """Returns the first row of each code; codes must be numbered in order of first appearance."""
    if not len(codes):
        return np.empty(0, np.int64)
    highest = np.maximum.accumulate(codes)
    return np.flatnonzero(np.diff(highest, prepend=-1) > 0)


@dataclasses.dataclass(frozen=True)
class Cell:
    """The counts of one vertical in one split.

    Attributes:
      items: number of items with an id.
      images: number of rows, the sum of `query_only`, `gallery_only` and `both`.
      few_images: number of items with fewer than `min_images` images.
      median_images: median number of images per item; 0 without items, like `most_images`.
      queries: number of rows that are queries; None in splits that are not evaluated.
      unanswered: number of queries whose item has no other gallery image; None likewise.
      answered_items: number of items that have a query with an answer; None likewise.
    """

    vertical: str
    split: str
    items: int
    images: int
    query_only: int
    gallery_only: int
    both: int
    few_images: int
    median_images: float
    most_images: int
    queries: int | None
    unanswered: int | None
    answered_items: int | None


def count_cells(labels: Labels, min_images: int) -> tuple[Cell, ...]:
    """Counts items and images per vertical and split.

    Args:
      labels: the labels of the rows.
      min_images: items with fewer images are counted in `few_images`.

    Returns:
      The cells that have rows, sorted by vertical and split.
    """
    cell = labels.vertical.astype(np.int64) * len(SPLITS) + labels.split
    order = np.argsort(cell, kind="stable")
    numbers, starts = np.unique(cell[order], return_index=True)
    found = []
    for number, rows in zip(numbers.tolist(), np.split(order, starts[1:])):
        vertical, split = divmod(number, len(SPLITS))
        evaluated = SPLITS[split] in EVALUATED
        item, answered = labels.item[rows], labels.is_answered[rows]
        is_query, is_gallery = labels.is_query[rows], labels.is_gallery[rows]
        _, of_items = np.unique(item[item >= 0], return_counts=True)
        found.append(
            Cell(
                vertical=labels.verticals[vertical],
                split=SPLITS[split],
                items=len(of_items),
                images=len(rows),
                query_only=int((~is_gallery).sum()),
                gallery_only=int((~is_query).sum()),
                both=int((is_query & is_gallery).sum()),
                few_images=int((of_items < min_images).sum()),
                median_images=float(np.median(of_items)) if len(of_items) else 0.0,
                most_images=int(of_items.max(initial=0)),
                queries=int(is_query.sum()) if evaluated else None,
                unanswered=int((is_query & ~answered).sum()) if evaluated else None,
                answered_items=len(np.unique(item[answered])) if evaluated else None,
            )
        )
    return tuple(found)


def count_by_images(labels: Labels) -> dict[str, dict[str, int]]:
    """Counts items by their number of images.

    Returns:
      Split -> number of images, such as "3" or "6-10" -> number of items. Only splits that have
      items, and classes up to the highest found.
    """
    known = labels.known_items
    classes = np.searchsorted(_CLASSES, labels.images_of_items[known], side="right") - 1
    splits = labels.split[labels.first_rows[known]]
    names = _CLASS_NAMES[: int(classes.max(initial=-1)) + 1]
    counts = {
        split: np.bincount(classes[splits == number], minlength=len(names)).tolist()
        for number, split in enumerate(SPLITS)
    }
    return {split: dict(zip(names, some)) for split, some in counts.items() if any(some)}
