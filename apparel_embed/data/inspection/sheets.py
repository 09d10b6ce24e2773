"""Contact sheets: which items stand for a vertical."""

from __future__ import annotations

import dataclasses

import numpy as np

from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.manifest import SPLITS

# Bounds the size of a page about a dataset of very many verticals.
MOST_SHEETS = 60
_PICTURES = 8


@dataclasses.dataclass(frozen=True)
class SheetItem:
    """A line of a contact sheet: an item, how many images it has, and the rows of those shown."""

    item: str
    split: str
    pictures: int
    rows: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The items that stand for a vertical, and out of how many they were drawn."""

    vertical: str
    items: tuple[SheetItem, ...]
    of_items: int


def choose_sheets(labels: Labels, items: int, seed: int) -> tuple[Sheet, ...]:
    """Draws the items to show of each vertical.

    Args:
      labels: of the rows.
      items: how many of each vertical.
      seed: of the choice.

    Returns:
      A sheet for each vertical that has items, the MOST_SHEETS with most items, by name.
    """
    known = labels.known_items
    vertical = labels.vertical[labels.first_rows[known]]
    counts = np.bincount(vertical, minlength=len(labels.verticals))
    largest = np.argsort(-counts, kind="stable")[:MOST_SHEETS]
    # Gallery before queries, as a shop shows its picture first.
    order = np.lexsort((~labels.is_gallery, labels.item))
    ordered = labels.item[order]

    def line(item: int) -> SheetItem:
        low, high = np.searchsorted(ordered, [item, item + 1])
        rows = tuple(order[low:high].tolist())
        split = SPLITS[labels.split[rows[0]]]
        return SheetItem(labels.items[item].as_py(), split, len(rows), rows[:_PICTURES])

    sheets = []
    for number in sorted(largest[counts[largest] > 0].tolist() if items else []):
        random = np.random.default_rng([seed, number])
        of_vertical = known[vertical == number]
        chosen = np.sort(random.permutation(of_vertical)[:items])
        lines = tuple(line(item) for item in chosen.tolist())
        sheets.append(Sheet(labels.verticals[number], lines, len(of_vertical)))
    return tuple(sheets)
