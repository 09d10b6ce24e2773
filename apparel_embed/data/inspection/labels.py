"""The labels of a manifest's rows as numbers, so that any number of rows is counted at once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from apparel_embed.data.columns import codes_of
from apparel_embed.data.manifest import SPLITS, UNLABELLED

# What a split is for: to learn from, to choose weights by, to judge by. Unlabelled pictures are
# learnt from as those of train are.
_STAGES = {"train": 0, UNLABELLED: 0, "val": 1, "test": 2}


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """The labels of n rows.

    Attributes:
      verticals: names of the verticals, sorted.
      vertical: int32 [n], number of the row's vertical.
      split: int8 [n], place of the row's split in SPLITS.
      items: names of the items in order of their first rows; a blank name is no item.
      item: int32 [n], number of the row's item; -1 where it is not known.
      first_rows: int64 [items], the first row of each item, known or not.
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
        """Returns the labels of a manifest as `read_manifest` returns it."""
        vertical, names = codes_of(table["vertical"])
        verticals = names.to_pylist()
        places = np.argsort(np.argsort(np.array(verticals, dtype=object)))
        split, splits = codes_of(table["split"])
        split_places = np.array([SPLITS.index(name) for name in splits.to_pylist()], np.int8)
        role, roles = codes_of(table["role"])
        # Names of 10 million items do not fit an array of short offsets.
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
        """What each row is for: 0 to learn from, 1 to choose weights by, 2 to judge by; int8."""
        return np.array([_STAGES[name] for name in SPLITS], np.int8)[self.split]

    @property
    def pictures_of_items(self) -> np.ndarray:
        """Number of rows of each item, int64 [items]; 0 for a blank name."""
        return np.bincount(self.item[self.item >= 0], minlength=len(self.items))

    def answered(self) -> np.ndarray:
        """Returns of each row whether it is a query that has another gallery picture of its item.

        An item is in one split only, so the gallery is that of the row's split.
        """
        known = self.item >= 0
        gallery = np.bincount(self.item[known & self.is_gallery], minlength=len(self.items))
        others = gallery[self.item] - self.is_gallery
        return known & self.is_query & (others > 0)


def first_rows(codes: np.ndarray) -> np.ndarray:
    """Returns the first row of each code; codes are numbered in the order in which they come."""
    if not len(codes):
        return np.empty(0, np.int64)
    highest = np.maximum.accumulate(codes)
    return np.flatnonzero(np.diff(highest, prepend=-1) > 0)
