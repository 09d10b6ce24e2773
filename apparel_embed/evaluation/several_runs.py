"""Combined results of several runs: repeated trainings on the same data or on other samples of it.

Runs of one dataset have the same queries, so each query's outcome is averaged over them. Different
datasets share no queries, so every vertical of every dataset is a stratum. A figure is the mean
over strata: the verticals that count in every dataset, so that datasets have equal weight,
regardless of their numbers of runs. Intervals are over items for the given trainings; the figures
of each run show how much trainings differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.protocol import (
    ALL,
    METRICS,
    Outcomes,
    compare_models,
    summary_rows,
)


def pool_runs(outcomes: Sequence[Outcomes], datasets: Sequence[str]) -> Outcomes:
    """Returns the outcomes of one model in several runs, combined into one.

    Args:
      outcomes: the outcomes of each run, at least one, all of the same scope.
      datasets: the dataset of each run: its fingerprint or another unique name.

    Returns:
      Outcomes whose "verticals" are the strata, named `<number of the dataset>/<vertical>`, of
      `comparable_verticals`, with metrics averaged query by query over the runs of the dataset.

    Raises:
      UserError: if there are no runs, the lengths differ, there are several scopes, or runs of one
        dataset did not answer the same queries.
    """
    if not outcomes or len(outcomes) != len(datasets):
        raise UserError(
            f"{len(outcomes)} outcomes and {len(datasets)} datasets; expected at least one "
            "outcome, and one dataset per outcome"
        )
    scopes = sorted({one.scope for one in outcomes})
    if len(scopes) > 1:
        raise UserError(f"outcomes of scopes {', '.join(scopes)}; expected one scope")
    names = comparable_verticals(outcomes)
    verticals: dict[str, QueryMetrics] = {}
    gallery: dict[str, int] = {}
    gallery_in_all = 0
    for number, dataset in enumerate(sorted(set(datasets))):
        runs = [one for one, name in zip(outcomes, datasets) if name == dataset]
        averaged = _averaged(runs, dataset)
        for vertical in names or averaged:
            verticals[f"{number}/{vertical}"] = averaged[vertical]
            gallery[f"{number}/{vertical}"] = runs[0].gallery[vertical]
        gallery_in_all += runs[0].gallery_in_all
    # The verticals that count were selected above.
    return Outcomes(scopes[0], verticals, gallery, gallery_in_all, least_items=1)


def comparable_verticals(outcomes: Sequence[Outcomes]) -> list[str]:
    """Returns the verticals that count in every run, in order; empty if there is none."""
    return sorted(set.intersection(*(set(one.counted()) for one in outcomes)))


def row_over_runs(outcomes: Sequence[Outcomes], datasets: Sequence[str], seed: int = 0) -> dict:
    """Returns the figures of one model over several runs.

    Args:
      outcomes: the outcomes of each run, at least two, all of the same scope.
      datasets: the dataset of each run.
      seed: seed of the bootstrap.

    Returns:
      scope, strata, queries and metrics as in `summary.json`, the mean over strata with its
      interval; `left_out`, the verticals that do not count in every run; `r_at_1_runs`, the mean
      over verticals of each run in input order; and their standard deviation `r_at_1_std`, over
      trainings, and over data if datasets differ.

    Raises:
      UserError: if there are fewer than two runs, and as in `pool_runs`.
    """
    _require_several(outcomes)
    pooled = pool_runs(outcomes, datasets)
    together = summary_rows(pooled, seed)[-1]
    names = ("r_at_1", "r_at_1_low", "r_at_1_high", *METRICS[1:])
    comparable = comparable_verticals(outcomes)
    answered = set().union(*(one.answered() for one in outcomes))
    runs = [_mean_recall_in(comparable, one) for one in outcomes]
    return {
        "scope": together["scope"],
        "strata": len(pooled.counted()),
        "left_out": sorted(answered - set(comparable)) if comparable else [],
        "queries": together["queries"],
        **{name: together[name] for name in names},
        "r_at_1_runs": runs,
        "r_at_1_std": _std(runs),
    }


def difference_over_runs(
    first: Sequence[Outcomes], second: Sequence[Outcomes], datasets: Sequence[str], seed: int = 0
) -> dict:
    """Returns R@1 of one model minus that of another, paired over the same queries of each run.

    Args:
      first: outcomes of one model in each run, at least two.
      second: outcomes of the other in the same runs, in the same order.
      datasets: the dataset of each run.
      seed: seed of the bootstrap.

    Returns:
      vertical ("ALL"), queries, difference, low, high and `is_clear` as in `summary.json`;
      `difference_runs`, the difference in each run in input order; and their standard deviation
      `difference_std`.

    Raises:
      UserError: if there are fewer than two runs, the models did not answer the same queries, and
        as in `pool_runs`.
    """
    _require_several(first)
    pooled = pool_runs(first, datasets), pool_runs(second, datasets)
    difference = compare_models(*pooled, seed=seed)[ALL]
    names = comparable_verticals(first)
    runs = [
        _mean_recall_in(names, ours) - _mean_recall_in(names, theirs)
        for ours, theirs in zip(first, second)
    ]
    return {
        **difference.as_record(),
        "difference_runs": runs,
        "difference_std": _std(runs),
    }


def mean_recall(outcomes: Outcomes, k: int = 1) -> float:
    """Returns recall@k of one model in one run: the mean over the verticals that count."""
    return float(np.mean([metrics.recall[k].mean() for metrics in outcomes.counted().values()]))


def _mean_recall_in(verticals: Sequence[str], outcomes: Outcomes) -> float:
    """Returns recall@1 of one model in one run, in some verticals; none for all that count."""
    if not verticals:
        return mean_recall(outcomes)
    return mean_recall(dataclasses.replace(outcomes.only(verticals), least_items=1))


def _averaged(runs: Sequence[Outcomes], dataset: str) -> dict[str, QueryMetrics]:
    """Returns metrics per vertical, averaged query by query over runs of one dataset."""
    first = runs[0].verticals
    for other in runs[1:]:
        if other.verticals.keys() != first.keys() or any(
            not np.array_equal(other.verticals[name].records, first[name].records) for name in first
        ):
            raise UserError(f"runs of dataset {dataset} did not answer the same queries")
    averaged = {}
    for name in first:
        found = [run.verticals[name] for run in runs]
        averaged[name] = dataclasses.replace(
            found[0],
            recall={k: np.mean([one.recall[k] for one in found], axis=0) for k in found[0].recall},
            average_precision_at_r=np.mean([one.average_precision_at_r for one in found], axis=0),
        )
    return averaged


def _require_several(outcomes: Sequence[Outcomes]) -> None:
    if len(outcomes) < 2:
        raise UserError(f"{len(outcomes)} runs; expected at least 2, to see how much they differ")


def _std(values: Sequence[float]) -> float:
    """Returns the sample standard deviation, an estimate for further runs of the kind."""
    return float(np.std(values, ddof=1))
