"""Validation during training: R@1 within each vertical on split val."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.protocol import EvaluationSet, answered_queries, query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import decoded_batches, on_device

R_AT_1 = "r_at_1"
AP50 = "ap50"
_TITLES = {R_AT_1: "R@1", AP50: "AP50"}


@dataclasses.dataclass(frozen=True)
class Validation:
    """How to compare the weights of a training.

    Attributes:
      measure: maps an embedder to the metric. Its summaries belong to the validated step.
      error: maps the metric to its standard error. Weights within one error of the best count as
        equally good: with few queries, the highest of many metrics is mostly luck (the rule of one
        standard error, Breiman et al. 1984, "Classification and Regression Trees").
      prefer: maps an embedder to a score that decides among equally good weights, higher is
        better; by default, later weights are kept.
      metric: name of the metric, R_AT_1 or AP50.
    """

    measure: Callable[[Embedder], float]
    error: Callable[[float], float] = lambda _: 0.0
    prefer: Callable[[Embedder], float] = lambda _: 0.0
    metric: str = R_AT_1

    @property
    def title(self) -> str:
        """Name of the metric for display."""
        return _TITLES[self.metric]


def make_validation(
    dataset: PreparedDataset,
    verticals: Sequence[str],
    image_size: int,
    cache_gib: float = 4.0,
    prefer: Callable[[Embedder], float] = lambda _: 0.0,
) -> Validation | None:
    """Returns the validation on split val by R@1 within each vertical, averaged over verticals.

    Args:
      dataset: a prepared dataset.
      verticals: verticals to validate on.
      image_size: side of the model's input, in pixels.
      cache_gib: memory for decoded images; without enough, each validation decodes them again.
      prefer: as in `Validation`.

    Returns:
      The validation, which also writes R@1 of each vertical to the default summary writer, if any;
      None if no query of the split has an answer.
    """
    images = evaluation_set(dataset, "val", verticals)
    if not answered_queries(images):
        return None
    decoded = decoded_batches(dataset, images.records, image_size)
    fits = len(images) * image_size**2 * 3 <= cache_gib * 2**30
    batches: Iterable[tf.Tensor] = list(decoded) if fits else on_device(decoded)

    def measure(embedder: Embedder) -> float:
        recalls = recall_within(embedder(batches), images)
        for name, recall in recalls.items():
            tf.summary.scalar(f"validation/r_at_1/{name}", recall)
        return float(np.mean(list(recalls.values())))

    return Validation(measure, standard_error(images, verticals), prefer)


def recall_within(embeddings: np.ndarray, images: EvaluationSet) -> dict[str, float]:
    """Returns R@1 within each vertical that answers a query, for the set's embeddings [n, dim]."""
    answered = query_outcomes(embeddings, images).answered()
    return {name: float(one.recall[1].mean()) for name, one in answered.items()}


def standard_error(images: EvaluationSet, verticals: Sequence[str]) -> Callable[[float], float]:
    """Returns a function from R@1, the mean over verticals, to its standard error.

    It assumes this R@1 in every vertical, shrunk towards 1/2 by adding one found and one missed
    item (after Agresti and Coull 1998), as all of a few items may be found by luck.
    """
    queries = images.only(images.is_query)
    places = queries.by_vertical()
    found = (places[vertical] for vertical in verticals if vertical in places)
    items = np.array([len(np.unique(queries.items[some])) for some in found], np.float64)

    def error(recall: float) -> float:
        share = (recall * items + 1) / (items + 2)
        return float(np.sqrt(np.sum(share * (1 - share) / items)) / max(len(items), 1))

    return error
