"""How many items and pictures there are, per vertical and split, and how they are spread."""

from __future__ import annotations

import dataclasses

import numpy as np

from apparel_embed.data.inspection.labels import Labels
from apparel_embed.data.manifest import SPLITS

EVALUATED = ("val", "test")
# Classes of the number of pictures of an item: the least of each.
_CLASSES = (1, 2, 3, 4, 5, 6, 11, 21, 51, 101)


@dataclasses.dataclass(frozen=True)
class Cell:
    """What there is of one vertical in one split.

    Attributes:
      vertical: its name.
      split: its name.
      items: items that are known by their id.
      pictures: rows.
      query_only: rows of role query.
      gallery_only: rows of role gallery.
      both: rows of role both.
      few_pictures: items with fewer than `min_pictures` pictures.
      median_pictures: of an item; 0 without items.
      most_pictures: of an item; 0 without items.
      queries: rows that are queries; None in splits that are not evaluated.
      unanswered: queries whose item has no other gallery picture; None likewise.
      answered_items: items that have a query with an answer; None likewise.
    """

    vertical: str
    split: str
    items: int
    pictures: int
    query_only: int
    gallery_only: int
    both: int
    few_pictures: int
    median_pictures: float
    most_pictures: int
    queries: int | None
    unanswered: int | None
    answered_items: int | None


def count_cells(labels: Labels, answered: np.ndarray, min_pictures: int) -> tuple[Cell, ...]:
    """Counts what there is of each vertical in each split.

    Args:
      labels: of the rows.
      answered: bool [n], see `Labels.answered`.
      min_pictures: items with fewer are counted as having few.

    Returns:
      The cells that have rows, by vertical and split.
    """
    cell = labels.vertical.astype(np.int64) * len(SPLITS) + labels.split
    cells = len(labels.verticals) * len(SPLITS)

    def rows(chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        return np.bincount(cell[chosen], minlength=cells)

    pictures = rows()
    both = rows(labels.is_query & labels.is_gallery)
    queries = rows(labels.is_query)
    gallery = rows(labels.is_gallery)
    unanswered = rows(labels.is_query & ~answered)
    known = labels.pictures_of_items > 0
    item_cell = cell[labels.first_rows[known]]
    item_pictures = labels.pictures_of_items[known]
    items = np.bincount(item_cell, minlength=cells)
    few = np.bincount(item_cell[item_pictures < min_pictures], minlength=cells)
    answered_items = np.unique(labels.item[answered])
    item_answers = np.bincount(cell[labels.first_rows[answered_items]], minlength=cells)
    middle, most = _middle_and_most(item_cell, item_pictures, items)
    found = []
    for number in np.flatnonzero(pictures):
        vertical, split = divmod(int(number), len(SPLITS))
        evaluated = SPLITS[split] in EVALUATED
        found.append(
            Cell(
                vertical=labels.verticals[vertical],
                split=SPLITS[split],
                items=int(items[number]),
                pictures=int(pictures[number]),
                query_only=int(queries[number] - both[number]),
                gallery_only=int(gallery[number] - both[number]),
                both=int(both[number]),
                few_pictures=int(few[number]),
                median_pictures=float(middle[number]),
                most_pictures=int(most[number]),
                queries=int(queries[number]) if evaluated else None,
                unanswered=int(unanswered[number]) if evaluated else None,
                answered_items=int(item_answers[number]) if evaluated else None,
            )
        )
    return tuple(found)


def _middle_and_most(
    groups: np.ndarray, values: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns median and maximum of the values of each group; 0 for a group without any."""
    order = np.lexsort((values, groups))
    ordered = np.append(values[order], 0)
    starts = np.cumsum(sizes) - sizes
    low, high = starts + np.maximum(sizes - 1, 0) // 2, starts + sizes // 2
    middle = np.where(sizes > 0, (ordered[low] + ordered[np.minimum(high, len(values))]) / 2, 0)
    return middle, np.where(sizes > 0, ordered[np.maximum(starts + sizes - 1, 0)], 0)


def count_by_pictures(labels: Labels) -> dict[str, dict[str, int]]:
    """Counts items by their number of pictures.

    Args:
      labels: of the rows.

    Returns:
      Split -> number of pictures, such as "3" or "6-10" -> number of items. Only splits that have
      items, and numbers up to the highest that is found.
    """
    known = labels.pictures_of_items > 0
    classes = np.searchsorted(_CLASSES, labels.pictures_of_items[known], side="right") - 1
    splits = labels.split[labels.first_rows[known]]
    names = [*(_class_name(*ends) for ends in zip(_CLASSES, _CLASSES[1:])), f"{_CLASSES[-1]}+"]
    last = int(classes.max(initial=-1)) + 1
    found = {}
    for number, split in enumerate(SPLITS):
        counts = np.bincount(classes[splits == number], minlength=len(_CLASSES))
        if counts.any():
            found[split] = dict(zip(names[:last], counts[:last].tolist()))
    return found


def _class_name(least: int, beyond: int) -> str:
    return str(least) if beyond == least + 1 else f"{least}-{beyond - 1}"
