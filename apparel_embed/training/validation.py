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
    """How the weights of a training are judged.

    Attributes:
      measure: from an embedder to the metric. What it writes for TensorBoard is of the step that is
        validated.
      error: from the metric to its standard error, within which later weights are as good as the
        best: of few queries the highest of many metrics is mostly luck (the rule of one standard
        error, Breiman et al. 1984, "Classification and Regression Trees").
      prefer: from an embedder to what decides among weights that are as good, the higher the
        better; by default the later are kept.
      metric: its name, R_AT_1 or AP50.
    """

    measure: Callable[[Embedder], float]
    error: Callable[[float], float] = lambda _: 0.0
    prefer: Callable[[Embedder], float] = lambda _: 0.0
    metric: str = R_AT_1

    @property
    def title(self) -> str:
        """Name of the metric, for people."""
        return _TITLES[self.metric]


def make_validation(
    dataset: PreparedDataset,
    verticals: Sequence[str],
    image_size: int,
    cache_gib: float = 4.0,
    prefer: Callable[[Embedder], float] = lambda _: 0.0,
) -> Validation | None:
    """Returns the validation on split val, by R@1 within each vertical, mean over verticals.

    Args:
      dataset: a prepared dataset.
      verticals: those to validate on.
      image_size: side of the model's input, in pixels.
      cache_gib: memory for decoded images; more are decoded again in each validation.
      prefer: as in `Validation`.

    Returns:
      None where the split has no query with an answer. R@1 of each vertical is written to the
      default summary writer, if there is one, for its step.
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
    """Returns R@1 within each vertical that answers a query; embeddings [n, dim] are of the set."""
    answered = query_outcomes(embeddings, images).answered()
    return {name: float(one.recall[1].mean()) for name, one in answered.items()}


def standard_error(images: EvaluationSet, verticals: Sequence[str]) -> Callable[[float], float]:
    """Returns a function from R@1, the mean over verticals, to its standard error.

    Every vertical is taken to have this R@1, drawn towards 1/2 by one item found and one not
    (after Agresti and Coull 1998), for of few items all may be found by luck.
    """
    queries = images.only(images.is_query)
    places = queries.by_vertical()
    found = (places[vertical] for vertical in verticals if vertical in places)
    items = np.array([len(np.unique(queries.items[some])) for some in found], np.float64)

    def error(recall: float) -> float:
        share = (recall * items + 1) / (items + 2)
        return float(np.sqrt(np.sum(share * (1 - share) / items)) / max(len(items), 1))

    return error
