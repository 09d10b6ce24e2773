"""Compares the evaluations of several runs and writes the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path, write_json
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.finished import FinishedEvaluation
from apparel_embed.evaluation.protocol import SCOPES, WITHIN, Outcomes, query_outcomes
from apparel_embed.evaluation.roles import ordered_models
from apparel_embed.evaluation.several_runs import difference_over_runs, row_over_runs
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import render_runs
from apparel_embed.runs.comparable import check_images, check_settings, check_verticals
from apparel_embed.runs.stages.evaluation import COMPARISONS, SUMMARY_FILE
from apparel_embed.store.names import EVALUATION
from apparel_embed.store.record import Stage, open_stage

SCHEMA_VERSION = 1
COMPARISON_FILE = "comparison.json"
COMPARISON_TABLE_FILE = "comparison.txt"


def compare_runs(
    run_dirs: Sequence[Path], prepared: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Returns the content of `comparison.json`.

    Models that every run has evaluated are compared; the others are logged.

    Args:
      run_dirs: directories of runs, at least two, each with a finished `evaluation` stage.
      prepared: the prepared dataset of all runs, or None for each run's own `<run>/prepared`.
      seed: seed of the bootstrap.

    Returns:
      `schema_version`, `split`, `runs` (directory, dataset and evaluation fingerprint of each),
      `rows` (see `row_over_runs`; one per model and scope) and `comparisons` (see
      `difference_over_runs`).

    Raises:
      UserError: there are fewer than two runs, a run is given twice, has no finished evaluation or
        has a dataset other than the evaluated one, splits or settings differ, different datasets
        share images or have different verticals, or no model is common to all runs.
    """
    stages = _open_stages(run_dirs)
    datasets = [_dataset_of(stage, prepared) for stage in stages]
    split = stages[0].flags["split"]
    check_images(run_dirs, datasets, split)
    evaluations = [
        FinishedEvaluation.open(
            stage.directory, split, evaluation_set(dataset, split), SUMMARY_FILE
        )
        for stage, dataset in zip(stages, datasets)
    ]
    found = _outcomes(run_dirs, evaluations)
    fingerprints = [dataset.fingerprint for dataset in datasets]
    return {
        "schema_version": SCHEMA_VERSION,
        "split": split,
        "runs": [
            {"run": str(run_dir), "dataset": dataset, "evaluation": stage.fingerprint}
            for run_dir, dataset, stage in zip(run_dirs, fingerprints, stages)
        ],
        "rows": [
            {"model": model, **row_over_runs(outcomes, fingerprints, seed)}
            for model, by_scope in found.items()
            for outcomes in by_scope.values()
        ],
        "comparisons": [
            {
                "model": first,
                "minus": second,
                **difference_over_runs(
                    found[first][WITHIN], found[second][WITHIN], fingerprints, seed
                ),
            }
            for first, second in COMPARISONS
            if first in found and second in found
        ],
    }


def write_comparison(record: Mapping[str, Any], directory: Path) -> None:
    """Writes `comparison.json` and the same as text, replacing existing files.

    Args:
      record: the result of `compare_runs`.
      directory: output directory; created if it is missing.

    Raises:
      UserError: the directory cannot be created or written to.
    """
    try:
        write_json(directory / COMPARISON_FILE, record)
        with atomic_path(directory / COMPARISON_TABLE_FILE) as temporary:
            temporary.write_text(render_runs(record), "utf-8")
    except OSError as error:
        raise UserError(f"--output={directory}: could not write to it ({error})") from error


def _open_stages(run_dirs: Sequence[Path]) -> list[Stage]:
    """Opens the evaluation of every run, and checks that they can be compared."""
    if len(run_dirs) < 2:
        raise UserError(f"--runs: expected at least 2 runs, got {len(run_dirs)}")
    stages: list[Stage] = []
    for run_dir in run_dirs:
        if not run_dir.is_dir():
            raise UserError(f"--runs: {run_dir} is not a directory; expected directories of runs")
        stage = open_stage(run_dir / EVALUATION)
        for earlier, other in zip(run_dirs, stages):
            if earlier.resolve() == run_dir.resolve():
                raise UserError(f"--runs: {run_dir} is given twice; expected each run once")
            if other.fingerprint == stage.fingerprint:
                raise UserError(
                    f"--runs: {run_dir} was made from the same flags and inputs as {earlier}; "
                    "expected each run once, so remove one of them"
                )
        stages.append(stage)
    splits = {run_dir: stage.flags["split"] for run_dir, stage in zip(run_dirs, stages)}
    if len(set(splits.values())) > 1:
        text = ", ".join(f"{run_dir} on {split}" for run_dir, split in splits.items())
        raise UserError(f"--runs were evaluated on different splits ({text}); expected one split")
    check_settings(run_dirs, stages)
    return stages


def _dataset_of(stage: Stage, prepared: Path | None) -> PreparedDataset:
    """Opens the dataset that was evaluated."""
    dataset = PreparedDataset.open(prepared or stage.directory.parent / "prepared")
    evaluated = stage.inputs.get("prepared")
    if dataset.fingerprint != evaluated:
        raise UserError(
            f"{stage.directory}: was made from a dataset with fingerprint {evaluated}, but that of "
            f"{dataset.directory} is {dataset.fingerprint}; name the evaluated dataset with "
            "--prepared, or evaluate again"
        )
    return dataset


def _outcomes(
    run_dirs: Sequence[Path], evaluations: Sequence[FinishedEvaluation]
) -> dict[str, dict[str, list[Outcomes]]]:
    """Returns each common model's outcomes in every run, by model and common scope."""
    if all(one.groups_are_single for one in evaluations):
        # If only some runs have single groups, these are the groups that were found there.
        evaluations = [one.without_repetition() for one in evaluations]
    models = ordered_models(name for one in evaluations for name in one.models)
    outcomes: dict[str, dict[str, list[Outcomes]]] = {}
    for model in models:
        of_runs = [one.scopes(model) for one in evaluations]
        common = [scope for scope in SCOPES if all(scope in found for found in of_runs)]
        for scope in {scope for found in of_runs for scope in found} - {*common}:
            missing = [str(run) for run, found in zip(run_dirs, of_runs) if scope not in found]
            logging.info("%s is not compared %s: missing in %s", model, scope, ", ".join(missing))
        if WITHIN not in common:
            continue
        logging.info("searching with %s in %d runs", model, len(run_dirs))
        outcomes[model] = {scope: [] for scope in common}
        for evaluation in evaluations:
            embeddings = evaluation.embeddings(model)
            for scope, of_scope in outcomes[model].items():
                of_scope.append(query_outcomes(embeddings, evaluation.images, scope))
        for of_scope in outcomes[model].values():
            check_verticals(run_dirs, of_scope)
    if not outcomes:
        raise UserError(
            f"--runs have none of {', '.join(models)} in common; evaluate the same models in all"
        )
    return outcomes
