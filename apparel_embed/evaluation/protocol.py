"""The evaluation of one model on one split, and the comparison of two models.

All data are plain arrays: an `EvaluationSet` marks the images that are queries or gallery, and the
embeddings of a model are rows in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.bootstrap import positions_of, stratified_bootstrap_interval
from apparel_embed.evaluation.metrics import QueryMetrics, mean_metrics, retrieval_metrics
from apparel_embed.evaluation.split import ALL, EvaluationSet

WITHIN = "within"
MERGED = "merged"
# These scopes also need a vertical head: see `evaluation.routing`.
ROUTED, SERVED = "routed", "served"
SCOPES = (WITHIN, MERGED)
KS = (1, 5, 10, 20)
METRICS = (*(f"r_at_{k}" for k in KS), "map_at_r")
LEAST_ITEMS = 5
"""A vertical with fewer items does not count in "ALL": its figures would mean little."""


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """The results of one model for every query, per vertical.

    Attributes:
      scope: "within" or "merged".
      verticals: vertical -> metrics of its queries that have an answer, possibly none.
      gallery: vertical -> number of gallery images its queries searched.
      gallery_in_all: number of gallery images searched by the verticals that have an answer.
      least_items: a vertical with queries of fewer items does not count in "ALL".
    """

    scope: str
    verticals: dict[str, QueryMetrics]
    gallery: dict[str, int]
    gallery_in_all: int
    least_items: int = LEAST_ITEMS

    def answered(self) -> dict[str, QueryMetrics]:
        """Returns the verticals in which at least one query has an answer."""
        return {name: metrics for name, metrics in self.verticals.items() if len(metrics)}

    def counted(self) -> dict[str, QueryMetrics]:
        """Returns the verticals whose mean is "ALL".

        These have queries of at least `least_items` items. If no vertical has that many, they are
        all verticals in which a query has an answer.
        """
        answered = self.answered()
        counted = {
            name: metrics
            for name, metrics in answered.items()
            if len(np.unique(metrics.items)) >= self.least_items
        }
        return counted or answered

    def counted_gallery(self) -> int:
        """Returns the number of gallery images searched by the verticals that count in "ALL"."""
        if self.scope != WITHIN:
            return self.gallery_in_all
        return sum(self.gallery[name] for name in self.counted())

    def only(self, verticals: Sequence[str]) -> Outcomes:
        """Returns the outcomes of the given verticals only."""
        return dataclasses.replace(
            self, verticals={name: self.verticals[name] for name in verticals}
        )


@dataclasses.dataclass(frozen=True)
class Difference:
    """Recall of one model minus that of another, on the same queries.

    Attributes:
      vertical: the vertical, or "ALL" for the mean over verticals.
      queries: number of queries that both models answered.
      difference: first minus second, -1 to 1.
      low: lower end of the interval.
      high: upper end of the interval.
    """

    vertical: str
    queries: int
    difference: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero: one model is better beyond chance."""
        return self.low > 0 or self.high < 0

    def as_record(self) -> dict[str, Any]:
        """Returns the attributes and `is_clear`, as in `summary.json`."""
        return {**dataclasses.asdict(self), "is_clear": self.is_clear}


def query_outcomes(
    embeddings: np.ndarray,
    evaluation_set: EvaluationSet,
    scope: str = WITHIN,
    *,
    query_embeddings: np.ndarray | None = None,
    metrics: Callable[..., QueryMetrics] = retrieval_metrics,
) -> Outcomes:
    """Searches with every query and returns the metrics of each.

    Args:
      embeddings: [n, dim] of the images of the set, in its order. In scope "within", verticals
        may be in different spaces.
      evaluation_set: the images.
      scope: "within" searches the gallery of the query's vertical, "merged" that of all verticals.
      query_embeddings: [n, dim] of the same images for use as queries; None for `embeddings`. They
        differ if the gallery's are compressed.
      metrics: the function that searches; it takes the arguments of `retrieval_metrics`.

    Raises:
      UserError: if the scope is unknown, embeddings are zero, not finite or do not fit the set, or
        no query has an answer in any vertical.
    """
    embeddings = np.asarray(embeddings)
    if scope not in SCOPES:
        raise UserError(f"scope is {scope!r}; expected one of {', '.join(SCOPES)}")
    if embeddings.shape[:1] != (len(evaluation_set),):
        raise UserError(
            f"embeddings of shape {embeddings.shape} for {len(evaluation_set)} images of the "
            "evaluation set; expected one row per image"
        )
    queries = embeddings if query_embeddings is None else np.asarray(query_embeddings)
    if queries.shape != embeddings.shape:
        raise UserError(
            f"query embeddings of shape {queries.shape}; expected {embeddings.shape}, as embeddings"
        )
    inside = evaluation_set.by_vertical()
    if scope == WITHIN:
        verticals, gallery = {}, {}
        for name, some in inside.items():
            verticals[name] = _search(metrics, queries, embeddings, evaluation_set, some)
            gallery[name] = int(evaluation_set.is_gallery[some].sum())
        gallery_in_all = sum(gallery[name] for name in inside if len(verticals[name]))
    else:
        everything = np.arange(len(evaluation_set))
        merged = _search(metrics, queries, embeddings, evaluation_set, everything)
        at = positions_of(evaluation_set.verticals[evaluation_set.positions(merged.records)])
        nowhere = np.zeros(0, np.int64)
        verticals = {name: merged.select(at.get(name, nowhere)) for name in inside}
        gallery_in_all = int(evaluation_set.is_gallery.sum())
        gallery = dict.fromkeys(inside, gallery_in_all)
    outcomes = Outcomes(scope, verticals, gallery, gallery_in_all)
    if not outcomes.answered():
        raise UserError(
            f"none of {int(evaluation_set.is_query.sum())} queries has another image of its item "
            f"among {int(evaluation_set.is_gallery.sum())} gallery images: nothing to evaluate"
        )
    return outcomes


def answered_queries(evaluation_set: EvaluationSet) -> dict[str, int]:
    """Returns the number of queries with an answer within each vertical; {} if there are none."""
    inside = evaluation_set.by_vertical()
    counts = {}
    for name, some in inside.items():
        is_gallery = evaluation_set.is_gallery[some]
        # The same item id in two verticals stands for two garments.
        _, garments = np.unique(evaluation_set.items[some], return_inverse=True)
        in_gallery = np.bincount(garments[is_gallery], minlength=len(some))
        # A query's own image is not an answer.
        others = in_gallery[garments] - is_gallery
        counts[name] = int((evaluation_set.is_query[some] & (others > 0)).sum())
    return counts if any(counts.values()) else {}


def evaluate_model(
    model: str,
    outcomes: Sequence[Outcomes],
    *,
    parameters: int,
    models_to_deploy: int,
    seed: int = 0,
) -> list[dict]:
    """Returns the rows of one model in `summary.json`.

    Args:
      model: its name.
      outcomes: outcomes for each scope; only "within" for models without a common space.
      parameters: number of parameters of all models to deploy, 0 or more.
      models_to_deploy: number of models a search needs in production, 0 or more.
      seed: seed of the bootstrap.

    Returns:
      For each scope, one row per vertical, then the row "ALL": means over the verticals of
      `Outcomes.counted`. Verticals without an answered query have 0 queries and None for metrics.

    Raises:
      UserError: if a count is negative.
    """
    for name, count in (("parameters", parameters), ("models_to_deploy", models_to_deploy)):
        if count < 0:
            raise UserError(f"{model}: {name} is {count}; expected 0 or more")
    cost = {"parameters": int(parameters), "models_to_deploy": int(models_to_deploy)}
    rows = (row for one in outcomes for row in summary_rows(one, seed))
    return [{"model": model, **row, **cost} for row in rows]


def summary_rows(outcomes: Outcomes, seed: int = 0) -> list[dict]:
    """Returns the rows of one scope: one per vertical, then "ALL".

    Args:
      outcomes: outcomes of one model.
      seed: seed of the bootstrap.

    Returns:
      Plain Python values. Those of "ALL" are means over the verticals with `in_all`, except
      `r_at_1_pooled`, the mean over their queries, and the counts.
    """
    counted = outcomes.counted()
    parts = [
        (name, {name: metrics} if len(metrics) else {}, outcomes.gallery[name], name in counted)
        for name, metrics in outcomes.verticals.items()
    ]
    return [
        {
            "scope": outcomes.scope,
            "vertical": name,
            "in_all": in_all,
            "queries": sum(map(len, part.values())),
            "gallery": gallery,
            **_figures(part, seed),
        }
        for name, part, gallery, in_all in (
            *parts,
            (ALL, counted, outcomes.counted_gallery(), True),
        )
    ]


def mean_and_interval(
    verticals: Mapping[str, QueryMetrics],
    values_of: Callable[[QueryMetrics], np.ndarray],
    seed: int = 0,
) -> tuple[float, float, float]:
    """Returns the mean over verticals of each one's mean over queries, and its 95 % interval.

    Args:
      verticals: metrics by vertical, each with at least one answered query.
      values_of: maps metrics to one value per query: [m], 0 to 1.
      seed: seed of the bootstrap.
    """
    mean = float(np.mean([values_of(metrics).mean() for metrics in verticals.values()]))
    values, items = _joined(verticals, values_of), _joined(verticals, lambda one: one.items)
    strata = _strata(verticals)
    return mean, *stratified_bootstrap_interval(values, items, strata, seed, possible=(0.0, 1.0))


def compare_models(
    first: Outcomes,
    second: Outcomes,
    *,
    k: int = 1,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Compares recall@k of two models on the same queries.

    Args:
      first: outcomes of one model, in any scope.
      second: outcomes of the other on the same evaluation set, in any scope.
      k: one of `KS`.
      seed: seed of the bootstrap.
      confidence: confidence of the intervals, between 0 and 1.

    Returns:
      Differences by name: "ALL", for the means over the verticals of `Outcomes.counted`, and every
      vertical that has an answered query.

    Raises:
      UserError: if the models did not answer the same queries, or k was not measured.
    """
    if k not in KS:
        raise UserError(f"k is {k}; expected one of {', '.join(map(str, KS))} for recall@k")
    ours, theirs = first.answered(), second.answered()
    if ours.keys() != theirs.keys() or any(
        not np.array_equal(ours[name].records, theirs[name].records) for name in ours
    ):
        raise UserError("the two models did not answer the same queries and cannot be compared")
    differences = {}
    for vertical in (ALL, *ours):
        part = first.counted() if vertical == ALL else {vertical: ours[vertical]}
        other = {name: theirs[name] for name in part}
        by_vertical = [part[name].recall[k].mean() - other[name].recall[k].mean() for name in part]
        low, high = stratified_bootstrap_interval(
            _joined(part, lambda one: one.recall[k]) - _joined(other, lambda one: one.recall[k]),
            _joined(part, lambda one: one.items),
            _strata(part),
            seed,
            confidence=confidence,
            possible=(-1.0, 1.0),
        )
        queries, difference = sum(map(len, part.values())), float(np.mean(by_vertical))
        differences[vertical] = Difference(vertical, queries, difference, low, high)
    return differences


def _search(
    metrics: Callable[..., QueryMetrics],
    queries: np.ndarray,
    embeddings: np.ndarray,
    evaluation_set: EvaluationSet,
    some: np.ndarray,
) -> QueryMetrics:
    """Returns metrics of the queries among some images, searching the gallery among them."""
    searching = some[evaluation_set.is_query[some]]
    searched = some[evaluation_set.is_gallery[some]]
    return metrics(
        queries[searching],
        evaluation_set.items[searching],
        evaluation_set.records[searching],
        embeddings[searched],
        evaluation_set.items[searched],
        evaluation_set.records[searched],
        KS,
    )


def _figures(verticals: Mapping[str, QueryMetrics], seed: int) -> dict[str, float | None]:
    """Returns the figures of a row of `summary.json`; None if no query has an answer."""
    names = ("r_at_1", "r_at_1_low", "r_at_1_high", *METRICS[1:], "r_at_1_pooled")
    if not verticals:
        return {**dict.fromkeys(names), "items": 0, "chance": None}
    each = [mean_metrics(metrics) for metrics in verticals.values()]
    _, low, high = mean_and_interval(verticals, lambda metrics: metrics.recall[1], seed)
    means = {name: float(np.mean([one[name] for one in each])) for name in METRICS}
    return {
        "r_at_1": means.pop("r_at_1"),
        "r_at_1_low": low,
        "r_at_1_high": high,
        **means,
        "r_at_1_pooled": float(_joined(verticals, lambda metrics: metrics.recall[1]).mean()),
        "items": sum(len(np.unique(metrics.items)) for metrics in verticals.values()),
        "chance": float(np.mean([metrics.chance.mean() for metrics in verticals.values()])),
    }


def _joined(
    verticals: Mapping[str, QueryMetrics], values: Callable[[QueryMetrics], np.ndarray]
) -> np.ndarray:
    return np.concatenate([values(metrics) for metrics in verticals.values()])


def _strata(verticals: Mapping[str, QueryMetrics]) -> np.ndarray:
    return np.repeat(list(verticals), [len(metrics) for metrics in verticals.values()])
