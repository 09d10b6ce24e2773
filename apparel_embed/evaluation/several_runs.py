"""What several runs found together: other trainings on the same data, or on data drawn again.

Runs of one dataset have the same queries: each query's outcome is averaged over them. Queries of
different datasets have nothing in common: every vertical of every dataset is a stratum. A figure is
the mean over strata: where all datasets have answers in the same verticals, it is the mean over
datasets, each weighing the same however many runs it has. Intervals are over items, with the
trainings as they are; how much trainings differ is seen in the figures of each run.
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
    """Returns what one model found in several runs, as the outcomes of one.

    Args:
      outcomes: of each run, at least one, all of the same scope.
      datasets: the dataset of each run, its fingerprint or another name.

    Returns:
      Outcomes whose "verticals" are the strata, `<number of the dataset>/<vertical>` of those that
      count there, with metrics averaged query by query over the runs of the dataset.

    Raises:
      UserError: no runs, numbers that differ, several scopes, or runs of one dataset that did not
        answer the same queries.
    """
    if not outcomes or len(outcomes) != len(datasets):
        raise UserError(
            f"{len(outcomes)} outcomes and {len(datasets)} datasets; one dataset per outcome and "
            "at least one of each are needed"
        )
    scopes = sorted({one.scope for one in outcomes})
    if len(scopes) > 1:
        raise UserError(f"outcomes of scopes {', '.join(scopes)}; one scope is needed")
    verticals: dict[str, QueryMetrics] = {}
    gallery: dict[str, int] = {}
    gallery_in_all = 0
    for number, dataset in enumerate(sorted(set(datasets))):
        runs = [one for one, name in zip(outcomes, datasets) if name == dataset]
        averaged, counted = _averaged(runs, dataset), runs[0].counted()
        for vertical in counted or averaged:
            verticals[f"{number}/{vertical}"] = averaged[vertical]
            gallery[f"{number}/{vertical}"] = runs[0].gallery[vertical]
        gallery_in_all += runs[0].gallery_in_all
    # Which verticals count was decided within each dataset.
    return Outcomes(scopes[0], verticals, gallery, gallery_in_all, least_items=1)


def row_over_runs(outcomes: Sequence[Outcomes], datasets: Sequence[str], seed: int = 0) -> dict:
    """Returns the figures of one model over several runs.

    Args:
      outcomes: of each run, at least two, all of the same scope.
      datasets: the dataset of each run.
      seed: of the bootstrap.

    Returns:
      scope, strata, queries and metrics as in `summary.json`, the mean over strata with its
      interval; `r_at_1_runs`, the mean over verticals of each run in the order given; and their
      standard deviation `r_at_1_std`, over trainings, and over data where datasets differ.

    Raises:
      UserError: fewer than two runs, or as `pool_runs`.
    """
    _require_several(outcomes)
    pooled = pool_runs(outcomes, datasets)
    together = summary_rows(pooled, seed)[-1]
    names = ("r_at_1", "r_at_1_low", "r_at_1_high", *METRICS[1:])
    runs = [mean_recall(one) for one in outcomes]
    return {
        "scope": together["scope"],
        "strata": len(pooled.counted()),
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
      seed: of the bootstrap.

    Returns:
      vertical ("ALL"), queries, difference, low, high and `is_clear` as in `summary.json`;
      `difference_runs`, the difference in each run in the order given; and their standard deviation
      `difference_std`.

    Raises:
      UserError: fewer than two runs, models that did not answer the same queries, or as
        `pool_runs`.
    """
    _require_several(first)
    pooled = pool_runs(first, datasets), pool_runs(second, datasets)
    difference = compare_models(*pooled, seed=seed)[ALL]
    runs = [mean_recall(ours) - mean_recall(theirs) for ours, theirs in zip(first, second)]
    return {
        **difference.as_record(),
        "difference_runs": runs,
        "difference_std": _std(runs),
    }


def mean_recall(outcomes: Outcomes, k: int = 1) -> float:
    """Returns recall@k of one model in one run, the mean over verticals that count."""
    return float(np.mean([metrics.recall[k].mean() for metrics in outcomes.counted().values()]))


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
        raise UserError(f"{len(outcomes)} runs; at least 2 are needed to see how much they differ")


def _std(values: Sequence[float]) -> float:
    """Returns the standard deviation of a sample, as an estimate for more runs like it."""
    return float(np.std(values, ddof=1))
