"""Embeddings of a split from every compared model, and the summary of their figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.absent import measure_absent
from apparel_embed.evaluation.baselines import colour_histograms
from apparel_embed.evaluation.protocol import (
    MERGED,
    EvaluationSet,
    compare_models,
    evaluate_model,
    query_outcomes,
)
from apparel_embed.evaluation.routing import evaluate_routing
from apparel_embed.evaluation.split import catalogue_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import (
    build_embedding_model,
    frozen_feature_model,
    load_embedding_model,
)
from apparel_embed.models.vertical_head import VerticalHead, feature_model

_READ_AHEAD = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Embedded:
    """The embeddings of a split from one model or one set of specialists.

    Attributes:
      embeddings: float32 [n, dim], in the order of the evaluation set.
      parameters: number of parameters of all models together.
      models_to_deploy: number of models that a search needs in production.
      one_space: whether images of different verticals can be compared.
    """

    embeddings: np.ndarray
    parameters: int
    models_to_deploy: int
    one_space: bool


def embed_by_histogram(dataset: PreparedDataset, records: np.ndarray) -> Embedded:
    """Embeds images by colour alone, the simplest baseline."""
    parts = [
        colour_histograms(dataset.read_images(records[start : start + _READ_AHEAD]))
        for start in range(0, len(records), _READ_AHEAD)
    ]
    return Embedded(np.concatenate(parts), parameters=0, models_to_deploy=0, one_space=True)


def embed_by_frozen_backbone(
    dataset: PreparedDataset, records: np.ndarray, config: ModelConfig, init_weights: str, seed: int
) -> Embedded:
    """Embeds images as the pooled features of the backbone with its initial weights.

    With `init_weights="none"` the weights are random.
    """
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    model = frozen_feature_model(build_embedding_model(config, init_weights))
    embeddings = Embedder(model).records(dataset, records)
    return Embedded(embeddings, model.count_params(), models_to_deploy=1, one_space=True)


def embed_by_model(dataset: PreparedDataset, records: np.ndarray, directory: Path) -> Embedded:
    """Embeds images with one trained model."""
    tf.keras.backend.clear_session()
    model, _ = load_embedding_model(directory)
    embeddings = Embedder(model).records(dataset, records)
    return Embedded(embeddings, model.count_params(), models_to_deploy=1, one_space=True)


def embed_by_specialists(
    dataset: PreparedDataset,
    images: EvaluationSet,
    specialists: Mapping[tuple[str, ...], Path],
) -> Embedded:
    """Embeds every image with the specialist of its vertical.

    Args:
      dataset: a prepared dataset.
      images: the evaluation set; each of its verticals has a specialist.
      specialists: directory of each model, keyed by the verticals of its group.

    Returns:
      Embeddings in as many spaces as there are specialists.
    """
    rows = np.zeros([len(images), 0], np.float32)
    parameters = 0
    inside, nowhere = images.by_vertical(), np.zeros(0, np.int64)
    for verticals, directory in specialists.items():
        mine = np.sort(np.concatenate([inside.get(name, nowhere) for name in verticals]))
        part = embed_by_model(dataset, images.records[mine], directory)
        if not rows.size:
            rows = np.zeros([len(images), part.embeddings.shape[1]], np.float32)
        rows[mine] = part.embeddings
        parameters += part.parameters
    return Embedded(rows, parameters, len(specialists), one_space=len(specialists) == 1)


def route_by_head(
    name: str,
    model: Embedded,
    dataset: PreparedDataset,
    images: EvaluationSet,
    directory: Path,
    head_directory: Path,
    seed: int,
) -> tuple[list[dict], dict]:
    """Evaluates searches in the verticals that a model's vertical head predicts.

    Args:
      name: name of the model.
      model: its embeddings of the images.
      dataset: a prepared dataset.
      images: the evaluation set.
      directory: directory of the model.
      head_directory: directory of its vertical head.
      seed: seed of the bootstrap.

    Returns:
      The result of `evaluate_routing`.
    """
    tf.keras.backend.clear_session()
    loaded, _ = load_embedding_model(directory)
    head = VerticalHead.load(head_directory)
    features = Embedder(feature_model(loaded)).records(dataset, images.records)
    return evaluate_routing(
        name,
        model.embeddings,
        *head.predict(features),
        images,
        routing_confidence=head.routing_confidence,
        parameters=model.parameters + head.weights.size + head.bias.size,
        seed=seed,
    )


def absent_queries(
    model: Embedded,
    dataset: PreparedDataset,
    images: EvaluationSet,
    directory: Path,
    split: str,
    seed: int,
) -> dict:
    """Measures same-item verdicts of a model; see `measure_absent`.

    Args:
      model: its embeddings of the images of the split.
      dataset: a prepared dataset.
      images: the evaluation set of the split.
      directory: directory of the model, which embeds the other splits' gallery and val's queries.
      split: the evaluated split.
      seed: seed of the bootstrap.
    """
    catalogue, splits = catalogue_set(dataset, split)
    is_known = np.isin(catalogue.records, images.records)
    embeddings = np.empty([len(catalogue), model.embeddings.shape[1]], np.float32)
    embeddings[is_known] = model.embeddings[images.positions(catalogue.records[is_known])]
    others = catalogue.records[~is_known]
    if len(others):
        embeddings[~is_known] = embed_by_model(dataset, others, directory).embeddings
    return measure_absent(embeddings, catalogue, splits, split, seed)


def summarise(
    models: Mapping[str, Embedded],
    images: EvaluationSet,
    comparisons: Sequence[tuple[str, str]],
    seed: int,
) -> dict:
    """Returns the content of `summary.json`.

    Args:
      models: the compared models, by name.
      images: the evaluation set that all models have embedded.
      comparisons: pairs of names whose difference in R@1 within the vertical is reported.
      seed: seed of the bootstrap.

    Returns:
      `rows`, as from `evaluate_model`, and `comparisons`: for each pair, the differences for "ALL"
      and for each vertical, with 95 % intervals.
    """
    rows = []
    within = {name: query_outcomes(model.embeddings, images) for name, model in models.items()}
    for name, model in models.items():
        merged = [query_outcomes(model.embeddings, images, MERGED)] if model.one_space else []
        rows += evaluate_model(
            name,
            [within[name], *merged],
            parameters=model.parameters,
            models_to_deploy=model.models_to_deploy,
            seed=seed,
        )
    differences = []
    for first, second in comparisons:
        if first in models and second in models:
            by_vertical = compare_models(within[first], within[second], seed=seed)
            differences += [
                {"model": first, "minus": second, **difference.as_record()}
                for difference in by_vertical.values()
            ]
    return {"rows": rows, "comparisons": differences}
