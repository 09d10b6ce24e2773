"""Checks on the table alone: splits, verticals and items that cannot be trained or evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.findings import (
    ERROR,
    NOTE,
    WARNING,
    Finding,
    found,
    some_names,
)
from apparel_embed.data.inspection.labels import EVALUATED, Cell, Labels
from apparel_embed.data.manifest import SPLITS, UNLABELLED

# With a single item there are no negatives.
_LEAST_ITEMS = 2
_NEEDED = (
    (
        "train",
        ERROR,
        ", so there is nothing to train on",
        "Fill in column split, or omit the column: the default is train.",
    ),
    (
        "val",
        NOTE,
        " to select weights and groups on",
        "run_pipeline holds out 15 % of the training items, or --val_fraction; prepare_dataset "
        "only with --val_fraction.",
    ),
    (
        "test",
        WARNING,
        " to evaluate models on",
        "Assign some items to split test, or evaluate on val and expect optimistic results.",
    ),
)


def check_table(labels: Labels, cells: Sequence[Cell], config: InspectConfig) -> Iterator[Finding]:
    """Yields findings about splits, verticals and items that cannot be trained or evaluated.

    Args:
      labels: the labels of the rows.
      cells: the counts per vertical and split.
      config: thresholds.
    """
    yield from _check_training(labels, cells, config)
    yield from _check_splits(cells)
    for split in EVALUATED:
        yield from _check_queries(labels, [cell for cell in cells if cell.split == split], split)
    yield from _check_validation(cells, config)


def _check_training(
    labels: Labels, cells: Sequence[Cell], config: InspectConfig
) -> Iterator[Finding]:
    """Yields findings about verticals and items that cannot be trained."""
    trained = [cell for cell in cells if cell.split == "train"]
    usable = {cell.vertical: cell.items - cell.few_images for cell in trained}
    small = [vertical for vertical, items in usable.items() if items < _LEAST_ITEMS]
    none = sum(usable.values()) < _LEAST_ITEMS
    yield from found(
        "untrainable_vertical",
        ERROR if none else WARNING,
        len(small),
        "vertical",
        f"of split train with fewer than {_LEAST_ITEMS} items of "
        f"{counted(config.min_images, 'image')} or more ({some_names(small)}): "
        + ("no triplets." if none else "no specialist is trained, the combined model is kept."),
        "Add items or images, or use --map_verticals to merge the vertical into another or omit "
        "it" + ("; or set --min_images=1." if config.min_images > 1 else "."),
    )
    few = labels.known_items
    few = few[labels.images_of_items[few] < config.min_images]
    few = few[labels.split[labels.first_rows[few]] == SPLITS.index("train")]
    items = sum(cell.items for cell in trained)
    yield from found(
        "items_with_few_images",
        WARNING,
        len(few),
        "item",
        f"of {items:,} in split train ({len(few) / max(items, 1):.0%}) "
        f"{'has' if len(few) == 1 else 'have'} fewer than {config.min_images} images: not used "
        "in triplets.",
        f"Add images of these items, or train with --min_images={config.min_images - 1}"
        + (", the default with --init_weights." if config.min_images == 2 else "."),
        rows=labels.first_rows[few],
    )


def _check_splits(cells: Sequence[Cell]) -> Iterator[Finding]:
    """Yields findings about splits that are missing, entirely or from some verticals."""
    of_split = {split: {cell.vertical for cell in cells if cell.split == split} for split in SPLITS}
    for split, severity, why, advice in _NEEDED:
        if not of_split[split]:
            what = f"There are no images of split {split}{why}."
            yield Finding(f"no_{split}_split", severity, 1, what, advice)
    learnt = of_split["train"] | of_split[UNLABELLED]
    for split in EVALUATED:
        unjudged = sorted(learnt - of_split[split])
        yield from found(
            f"vertical_without_{split}",
            NOTE if split == "val" else WARNING,
            len(unjudged) if of_split[split] else 0,
            "vertical",
            f"without images of split {split}: {some_names(unjudged)}.",
            f"Assign some of their items to split {split}.",
        )
    unlearnt = sorted((of_split["val"] | of_split["test"]) - learnt)
    yield from found(
        "vertical_without_train",
        WARNING,
        len(unlearnt) if learnt else 0,
        "vertical",
        f"without images of split train: {some_names(unlearnt)}; no specialist is trained.",
        "Assign some of their items to split train, or omit the vertical.",
    )


def _check_queries(labels: Labels, cells: Sequence[Cell], split: str) -> Iterator[Finding]:
    """Yields findings about queries of a split that have no answer."""
    unanswered = [cell.vertical for cell in cells if cell.queries == cell.unanswered]
    if cells and len(unanswered) == len(cells):
        yield Finding(
            "split_without_answers",
            ERROR,
            sum(cell.images for cell in cells),
            f"Split {split}: no query has another gallery image of its item, so it cannot be "
            "evaluated.",
            "Give items of this split two or more images, and mark queries and gallery images in "
            "column role.",
        )
    else:
        yield from found(
            "vertical_without_answers",
            WARNING,
            len(unanswered),
            "vertical",
            f"of split {split} in which no query has an answer: {some_names(unanswered)}.",
            "Add gallery images of the queried items.",
        )
    is_query = (labels.split == SPLITS.index(split)) & labels.is_query
    rows = np.flatnonzero(is_query & ~labels.is_answered)
    queries = int(is_query.sum())
    yield from found(
        "unanswered_queries",
        WARNING,
        len(rows),
        "query",
        f"of {queries:,} in split {split} ({len(rows) / max(queries, 1):.0%}) without another "
        "gallery image of the item: left out of the evaluation.",
        "Add gallery images of their items, or give these queries the role gallery.",
        rows=rows,
    )


def _check_validation(cells: Sequence[Cell], config: InspectConfig) -> Iterator[Finding]:
    """Yields a finding about verticals with too few validation items."""
    names = [
        f"{cell.vertical} {cell.answered_items:,}"
        for cell in cells
        if cell.split == "val" and (cell.answered_items or 0) < config.min_val_items
    ]
    yield from found(
        "few_validation_items",
        WARNING,
        len(names),
        "vertical",
        f"with fewer than {config.min_val_items} validation items that have an answer: "
        f"{some_names(names)}.",
        "A search for groups judges them by the rest of their group; hold out more items, or set "
        "--groups.",
    )
