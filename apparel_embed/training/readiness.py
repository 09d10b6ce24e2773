"""Checks what a dataset lacks for training and evaluation, before anything is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.split import evaluation_set

JOIN, REFUSE = "join", "refuse"
SMALL_VERTICALS = {
    JOIN: "keep the combined model instead of training a specialist",
    REFUSE: "fail before anything is trained",
}
"""Ways to handle verticals that are too small for a specialist, by name."""
LEAST_ITEMS = 2
_MOST_NAMED = 8


@dataclasses.dataclass(frozen=True)
class Readiness:
    """The result of a check.

    Attributes:
      problems: sentences about problems that make the run fail.
      notes: sentences that the user should know before the run.
      is_measured: whether a query of the evaluated split has an answer.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    is_measured: bool


def usable_items(items: np.ndarray, min_images: int) -> int:
    """Returns the number of items with enough images for triplets.

    Args:
      items: [n] item of each training image, strings or numbers.
      min_images: items with fewer images are skipped.
    """
    _, counts = np.unique(items, return_counts=True)
    return int((counts >= min_images).sum())


def check_readiness(
    dataset: PreparedDataset,
    *,
    min_images: int,
    split: str,
    small_verticals: str = JOIN,
    specialists_start_from_combined: bool = True,
) -> Readiness:
    """Finds problems that would end a run late, or leave a metric or a choice without evidence.

    Args:
      dataset: a prepared dataset.
      min_images: items with fewer training images are skipped.
      split: the split to evaluate on.
      small_verticals: one of `SMALL_VERTICALS`, for those with fewer than `LEAST_ITEMS` items.
      specialists_start_from_combined: whether a combined model exists that can be kept.

    Raises:
      UserError: if `small_verticals` is unknown.
    """
    if small_verticals not in SMALL_VERTICALS:
        allowed = ", ".join(SMALL_VERTICALS)
        raise UserError(f"--small_verticals={small_verticals}: expected one of {allowed}")
    images = counted(min_images, "image")
    usable = _usable_by_vertical(dataset, min_images)
    problems, notes = [], []
    if sum(usable.values()) < LEAST_ITEMS:
        problems.append(
            f"Split train has {counted(sum(usable.values()), 'item')} with {images} or more; "
            f"triplets need {LEAST_ITEMS} items. Add items or images, or set --min_images=1."
        )
    small = [name for name in dataset.verticals if usable[name] < LEAST_ITEMS]
    if small:
        few = (
            f"Too small for a specialist, with fewer than {LEAST_ITEMS} items of {images} or more "
            f"in split train: {_named([f'{name} {usable[name]}' for name in small])}."
        )
        if small_verticals == JOIN and specialists_start_from_combined:
            notes.append(f"{few} They keep the combined model (--small_verticals={JOIN}).")
        else:
            leave_out = ",".join(f"{name}:" for name in small)
            problems.append(
                f"{few} Add items or images, map them to a larger vertical with --map_verticals, "
                f"drop them with --map_verticals={leave_out}, or set "
                f"--small_verticals={JOIN} with --specialist_start=combined."
            )
    answered = answered_queries(evaluation_set(dataset, split))
    notes += _unanswered_notes(dataset, answered, split)
    for one in dict.fromkeys(("val", split)):
        notes += _single_notes(dataset, one)
    return Readiness(tuple(problems), tuple(notes), any(answered.values()))


def _unanswered_notes(
    dataset: PreparedDataset, answered: Mapping[str, int], split: str
) -> list[str]:
    """Returns notes on verticals without queries, given the answered ones of a split."""
    notes = []
    chosen = answered_queries(evaluation_set(dataset, "val"))
    unchosen = [name for name in dataset.verticals if not chosen.get(name)]
    unmeasured = [name for name in dataset.verticals if not answered.get(name)]
    if unchosen:
        notes.append(
            f"Split val has no query with a match in: {_named(unchosen)}. The queries of other "
            "verticals choose their teachers, and nothing shows when to stop their trainings."
        )
    if len(unmeasured) == len(dataset.verticals):
        notes.append(
            f"Split {split} has no query with a match: models are trained and exported, but "
            "nothing is measured. A query needs another image of its item in the same split."
        )
    elif unmeasured:
        notes.append(
            f"Split {split} has no query with a match in: {_named(unmeasured)}. These verticals "
            "are not measured."
        )
    return notes


def _single_notes(dataset: PreparedDataset, split: str) -> list[str]:
    """Returns a note on verticals with only one item in a split, which any model finds."""
    images = evaluation_set(dataset, split)
    gallery = images.only(images.is_gallery)
    places, answered = gallery.by_vertical(), answered_queries(images)
    single = [
        name
        for name in dataset.verticals
        if answered.get(name) and len(np.unique(gallery.items[places[name]])) == 1
    ]
    if not single:
        return []
    return [
        f"Split {split} has only one item in: {_named(single)}. R@1 is 1 there for any model, "
        "which shows nothing; hold out more items."
    ]


def _usable_by_vertical(dataset: PreparedDataset, min_images: int) -> dict[str, int]:
    """Returns the number of items with enough images in split train, by vertical."""
    records = dataset.select(split="train")
    codes, names = dataset.codes("vertical")
    pairs = np.stack([codes[records], dataset.codes("item_id")[0][records]])
    (verticals, _), counts = np.unique(pairs, axis=1, return_counts=True)
    usable = np.bincount(verticals[counts >= min_images], minlength=len(names))
    return {str(name): int(number) for name, number in zip(names, usable)}


def _named(names: Sequence[str]) -> str:
    """Returns the first names as a list, with the number of others."""
    first, more = ", ".join(names[:_MOST_NAMED]), len(names) - _MOST_NAMED
    return f"{first} and {counted(more, 'other')}" if more > 0 else first
