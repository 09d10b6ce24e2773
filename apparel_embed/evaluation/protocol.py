"""The evaluation of one model on one split, and the comparison of two models.

Everything is plain arrays: an `EvaluationSet` says which pictures are queries and gallery, and the
embeddings of a model are rows in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.bootstrap import (
    bootstrap_interval,
    paired_difference_interval,
    stratified_bootstrap_interval,
)
from apparel_embed.evaluation.metrics import QueryMetrics, mean_metrics, retrieval_metrics

ALL = "ALL"
WITHIN = "within"
MERGED = "merged"
# Not searches of embeddings alone: see `evaluation.routing`.
ROUTED, SERVED = "routed", "served"
SCOPES = (WITHIN, MERGED)
KS = (1, 5, 10, 20)
METRICS = (*(f"r_at_{k}" for k in KS), "map_at_r")
LEAST_ITEMS = 5
"""On fewer items a figure says little: a vertical with fewer does not count in "ALL"."""
SHARE = (0.0, 1.0)
_ALSO = ("r_at_1_pooled", "items", "chance")


@dataclasses.dataclass(frozen=True, eq=False)
class EvaluationSet:
    """The pictures of one split and their part in the evaluation.

    Attributes:
      records: [n] int64 record numbers, each once.
      items: [n] str item ids.
      verticals: [n] str names; "ALL" is taken by the mean over verticals.
      is_query: [n] bool.
      is_gallery: [n] bool; a picture of role "both" is query and gallery.
    """

    records: np.ndarray
    items: np.ndarray
    verticals: np.ndarray
    is_query: np.ndarray
    is_gallery: np.ndarray

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            values = np.asarray(getattr(self, field.name))
            if field.name.startswith("is_"):
                values = values.astype(bool)
            object.__setattr__(self, field.name, values)
            if values.ndim != 1 or len(values) != len(self.records):
                raise UserError(
                    f"{field.name} of shape {values.shape}, but {len(self.records)} records: "
                    "one value per picture is needed"
                )
        numbers, counts = np.unique(self.records, return_counts=True)
        if (counts > 1).any():
            raise UserError(f"record {numbers[counts.argmax()]} is in the evaluation set twice")
        if (self.verticals == ALL).any():
            raise UserError(f"a vertical is named {ALL!r}, the name of the mean over verticals")

    def __len__(self) -> int:
        return len(self.records)

    def only(self, chosen: np.ndarray) -> EvaluationSet:
        """Returns a part of the set: the images for which bool [n] is true."""
        fields = (field.name for field in dataclasses.fields(self))
        return EvaluationSet(**{name: getattr(self, name)[chosen] for name in fields})

    def vertical_names(self) -> list[str]:
        """Returns the verticals that have a query or a gallery picture, sorted."""
        return [str(name) for name in np.unique(self.verticals[self.is_query | self.is_gallery])]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
    """What one model found for every query, per vertical.

    Attributes:
      scope: "within" or "merged".
      verticals: vertical -> metrics of its queries that have an answer; there may be none.
      gallery: vertical -> number of gallery pictures its queries searched.
      gallery_in_all: number of gallery pictures searched by the verticals that have an answer.
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

        They are those with queries of at least `least_items` items; where no vertical has as many,
        all in which a query has an answer.
        """
        answered = self.answered()
        counted = {
            name: metrics
            for name, metrics in answered.items()
            if len(np.unique(metrics.items)) >= self.least_items
        }
        return counted or answered

    def counted_gallery(self) -> int:
        """Returns how many gallery images the verticals that count searched."""
        if self.scope != WITHIN:
            return self.gallery_in_all
        return sum(self.gallery[name] for name in self.counted())

    def only(self, verticals: Sequence[str]) -> Outcomes:
        """Returns the outcomes of some verticals' queries."""
        return dataclasses.replace(
            self, verticals={name: self.verticals[name] for name in verticals}
        )


@dataclasses.dataclass(frozen=True)
class Difference:
    """Recall of one model minus that of another, on the same queries.

    Attributes:
      vertical: the vertical, or "ALL" for the mean over verticals.
      queries: number of queries both answered.
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
        """Whether the interval leaves out zero: one model is better beyond chance."""
        return self.low > 0 or self.high < 0


def query_outcomes(
    embeddings: np.ndarray,
    evaluation_set: EvaluationSet,
    scope: str = WITHIN,
    *,
    query_embeddings: np.ndarray | None = None,
) -> Outcomes:
    """Searches with every query and judges the result, query by query.

    Args:
      embeddings: [n, dim] of the pictures of the set, in its order. In scope "within", verticals
        may lie in different spaces.
      evaluation_set: the pictures.
      scope: "within" searches the gallery of the query's vertical, "merged" that of all.
      query_embeddings: [n, dim] of the same pictures as queries, if they are not those they have in
        a gallery, which may be compressed.

    Returns:
      Metrics of each query that has an answer, by vertical.

    Raises:
      UserError: unknown scope, embeddings that do not fit the set or have no direction, or no
        query with an answer in any vertical.
    """
    embeddings = np.asarray(embeddings)
    if scope not in SCOPES:
        raise UserError(f"scope {scope!r} is unknown; allowed are {', '.join(SCOPES)}")
    if embeddings.shape[:1] != (len(evaluation_set),):
        raise UserError(
            f"embeddings of shape {embeddings.shape} for {len(evaluation_set)} pictures of the "
            "evaluation set: one row per picture is needed"
        )
    queries = embeddings if query_embeddings is None else np.asarray(query_embeddings)
    if queries.shape != embeddings.shape:
        raise UserError(
            f"query embeddings of shape {queries.shape}, but embeddings of {embeddings.shape}"
        )
    both = (queries, embeddings)
    names = evaluation_set.vertical_names()
    inside = {name: evaluation_set.verticals == name for name in names}
    if scope == WITHIN:
        verticals = {name: _search(both, evaluation_set, inside[name]) for name in names}
        gallery = {name: int(evaluation_set.is_gallery[inside[name]].sum()) for name in names}
        gallery_in_all = sum(gallery[name] for name in names if len(verticals[name]))
    else:
        verticals = _search_merged(both, evaluation_set, names)
        gallery_in_all = int(evaluation_set.is_gallery.sum())
        gallery = dict.fromkeys(names, gallery_in_all)
    outcomes = Outcomes(scope, verticals, gallery, gallery_in_all)
    if not outcomes.answered():
        raise UserError(
            f"none of {int(evaluation_set.is_query.sum())} queries has another picture of its item "
            f"among {int(evaluation_set.is_gallery.sum())} gallery pictures: nothing to evaluate"
        )
    return outcomes


def answered_queries(evaluation_set: EvaluationSet) -> dict[str, int]:
    """Returns how many queries have an answer within each vertical; nothing if none has one."""
    names, verticals = np.unique(evaluation_set.verticals, return_inverse=True)
    _, items = np.unique(evaluation_set.items, return_inverse=True)
    garments = verticals * len(evaluation_set) + items
    _, garments = np.unique(garments, return_inverse=True)
    in_gallery = np.bincount(garments[evaluation_set.is_gallery], minlength=len(garments))
    # Its own image answers no query.
    others = in_gallery[garments] - evaluation_set.is_gallery
    answered = np.bincount(verticals[evaluation_set.is_query & (others > 0)], minlength=len(names))
    counts = {str(name): int(count) for name, count in zip(names, answered)}
    if not any(counts.values()):
        return {}
    return {name: counts[name] for name in evaluation_set.vertical_names()}


def evaluate_model(
    model: str,
    embeddings: np.ndarray,
    evaluation_set: EvaluationSet,
    *,
    scopes: Sequence[str] = SCOPES,
    parameters: int,
    models_to_deploy: int,
    seed: int = 0,
) -> list[dict]:
    """Evaluates one model: the rows of `summary.json`.

    Args:
      model: name of the model.
      embeddings: [n, dim] of the pictures of the set, in its order.
      evaluation_set: the pictures.
      scopes: "within", "merged" or both; only "within" for models without one common space.
      parameters: parameters of all models to deploy together, 0 or more.
      models_to_deploy: number of models a search needs in production, 0 or more.
      seed: of the bootstrap.

    Returns:
      Per scope one row per vertical, then the row "ALL": means over the verticals that count, see
      `Outcomes.counted`. Verticals without an answered query have 0 queries and None for metrics.

    Raises:
      UserError: as `query_outcomes`, or a negative count.
    """
    for name, count in (("parameters", parameters), ("models_to_deploy", models_to_deploy)):
        if count < 0:
            raise UserError(f"{model}: {name} is {count}; allowed is 0 or more")
    cost = {"parameters": int(parameters), "models_to_deploy": int(models_to_deploy)}
    rows = []
    for scope in scopes:
        outcomes = query_outcomes(embeddings, evaluation_set, scope)
        rows += [{"model": model, **row, **cost} for row in summary_rows(outcomes, seed)]
    return rows


def summary_rows(outcomes: Outcomes, seed: int = 0) -> list[dict]:
    """Returns the rows of one scope: each vertical, then "ALL".

    Args:
      outcomes: of one model.
      seed: of the bootstrap.

    Returns:
      Dicts with scope, vertical, queries, gallery and metrics: plain Python values. Those of "ALL"
      are means over the verticals for which `in_all` is true, but for `r_at_1_pooled`, the mean
      over their queries, and the counts.
    """
    rows, means = [], []
    counted = outcomes.counted()
    for vertical, metrics in outcomes.verticals.items():
        values: dict[str, float | None] = dict.fromkeys((*METRICS, *_ALSO))
        values["items"] = 0
        low = high = None
        in_all = vertical in counted
        if len(metrics):
            measured = {
                **mean_metrics(metrics),
                "r_at_1_pooled": float(metrics.recall[1].mean()),
                "items": len(np.unique(metrics.items)),
                "chance": float(metrics.chance.mean()),
            }
            if in_all:
                means.append(measured)
            values.update(measured)
            low, high = bootstrap_interval(metrics.recall[1], metrics.items, seed, possible=SHARE)
        counts = (len(metrics), outcomes.gallery[vertical])
        rows.append(_row(outcomes.scope, vertical, counts, in_all, values, (low, high)))
    values = {name: float(np.mean([mean[name] for mean in means])) for name in (*METRICS, "chance")}
    values["r_at_1_pooled"] = float(_joined(counted, lambda metrics: metrics.recall[1]).mean())
    values["items"] = sum(mean["items"] for mean in means)
    low, high = stratified_bootstrap_interval(
        _joined(counted, lambda metrics: metrics.recall[1]),
        _joined(counted, lambda metrics: metrics.items),
        _strata(counted),
        seed,
        possible=SHARE,
    )
    counts = (sum(len(metrics) for metrics in counted.values()), outcomes.counted_gallery())
    rows.append(_row(outcomes.scope, ALL, counts, True, values, (low, high)))
    return rows


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
      first: outcomes of one model, of any scope.
      second: outcomes of the other on the same evaluation set, of any scope.
      k: one of 1, 5, 10, 20.
      seed: of the bootstrap.
      confidence: of the intervals, between 0 and 1.

    Returns:
      "ALL" (difference of the means over verticals that count, see `Outcomes.counted`) and every
      vertical that has an answered query.

    Raises:
      UserError: the models did not answer the same queries, or k was not measured.
    """
    if k not in KS:
        raise UserError(f"recall@{k} was not measured; allowed is k of {', '.join(map(str, KS))}")
    ours, theirs = first.answered(), second.answered()
    if ours.keys() != theirs.keys() or any(
        not np.array_equal(ours[name].records, theirs[name].records) for name in ours
    ):
        raise UserError("the two models did not answer the same queries: nothing to compare")
    differences = {}
    for vertical in (ALL, *ours):
        part = first.counted() if vertical == ALL else {vertical: ours[vertical]}
        other = {name: theirs[name] for name in part}
        by_vertical = [
            metrics.recall[k].mean() - other[name].recall[k].mean()
            for name, metrics in part.items()
        ]
        low, high = paired_difference_interval(
            _joined(part, lambda metrics: metrics.recall[k]),
            _joined(other, lambda metrics: metrics.recall[k]),
            _joined(part, lambda metrics: metrics.items),
            seed,
            strata=_strata(part),
            confidence=confidence,
        )
        queries = sum(len(metrics) for metrics in part.values())
        difference = float(np.mean(by_vertical))
        differences[vertical] = Difference(vertical, queries, difference, low, high)
    return differences


def _search(
    both: tuple[np.ndarray, np.ndarray], evaluation_set: EvaluationSet, inside: np.ndarray
) -> QueryMetrics:
    query_embeddings, embeddings = both
    queries = inside & evaluation_set.is_query
    gallery = inside & evaluation_set.is_gallery
    return retrieval_metrics(
        query_embeddings[queries],
        evaluation_set.items[queries],
        evaluation_set.records[queries],
        embeddings[gallery],
        evaluation_set.items[gallery],
        evaluation_set.records[gallery],
        KS,
    )


def _search_merged(
    both: tuple[np.ndarray, np.ndarray], evaluation_set: EvaluationSet, names: Sequence[str]
) -> dict[str, QueryMetrics]:
    metrics = _search(both, evaluation_set, np.ones(len(evaluation_set), bool))
    order = np.argsort(evaluation_set.records)
    at = order[np.searchsorted(evaluation_set.records[order], metrics.records)]
    verticals = evaluation_set.verticals[at]
    return {name: metrics.select(verticals == name) for name in names}


def _row(
    scope: str,
    vertical: str,
    counts: tuple[int, int],
    in_all: bool,
    values: dict,
    interval: tuple[float | None, float | None],
) -> dict:
    """Returns a row; `counts` are those of its queries and of its gallery."""
    queries, gallery = counts
    low, high = interval
    return {
        "scope": scope,
        "vertical": vertical,
        "in_all": in_all,
        "queries": queries,
        "gallery": gallery,
        "r_at_1": values["r_at_1"],
        "r_at_1_low": low,
        "r_at_1_high": high,
        **{name: values[name] for name in (*METRICS, *_ALSO) if name != "r_at_1"},
    }


def _joined(
    verticals: dict[str, QueryMetrics], values: Callable[[QueryMetrics], np.ndarray]
) -> np.ndarray:
    return np.concatenate([values(metrics) for metrics in verticals.values()])


def _strata(verticals: dict[str, QueryMetrics]) -> np.ndarray:
    return np.repeat(list(verticals), [len(metrics) for metrics in verticals.values()])
