"""Validation during training: R@1 within each vertical on a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.protocol import answered_queries, query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches

_BATCH = 64


def make_validation(
    dataset: PreparedDataset, verticals: Sequence[str], image_size: int, split: str = "val"
) -> Callable[[Embedder], float] | None:
    """Returns a function from a model's embedder to R@1 within each vertical, mean over verticals.

    Args:
      dataset: a prepared dataset.
      verticals: those to validate on.
      image_size: side of the model's input, in pixels.
      split: name of the split.

    Returns:
      The function, or None where the split has no query with an answer. It writes R@1 of each
      vertical to the default summary writer, if there is one, for its step.
    """
    pictures = evaluation_set(dataset, split, verticals)
    if not answered_queries(pictures):
        return None
    batches = list(decoded_batches(dataset, pictures.records, image_size, _BATCH))

    def validate(embedder: Embedder) -> float:
        outcomes = query_outcomes(embedder(batches), pictures)
        recalls = {name: one.recall[1].mean() for name, one in outcomes.answered().items()}
        for name, recall in recalls.items():
            tf.summary.scalar(f"validation/r_at_1/{name}", recall)
        return float(np.mean(list(recalls.values())))

    return validate


def standard_error(
    dataset: PreparedDataset, verticals: Sequence[str], split: str = "val"
) -> Callable[[float], float]:
    """Returns a function from R@1, the mean over verticals, to its standard error.

    Every vertical is taken to have this R@1, drawn towards 1/2 by one item found and one not
    (after Agresti and Coull 1998), for of few items all may be found by luck.

    Args:
      dataset: a prepared dataset.
      verticals: those that are validated on.
      split: name of the split.
    """
    pictures = evaluation_set(dataset, split, verticals)
    found = [
        len(np.unique(pictures.items[pictures.is_query & (pictures.verticals == vertical)]))
        for vertical in verticals
    ]
    items = np.array([count for count in found if count], np.float64)

    def error(recall: float) -> float:
        share = (recall * items + 1) / (items + 2)
        return float(np.sqrt(np.sum(share * (1 - share) / items)) / max(len(items), 1))

    return error
