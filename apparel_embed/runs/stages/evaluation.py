"""The stage that evaluates all models of a run on the same queries."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import write_json
from apparel_embed.common.text import counted, plain_text
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.absent import ABSENT_FILE
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.evaluation.finished import without_repetition
from apparel_embed.evaluation.growth import GROWTH_FILE, render_growth
from apparel_embed.evaluation.items import ITEMS_FILE, measure_items
from apparel_embed.evaluation.models import (
    Embedded,
    absent_queries,
    embed_by_frozen_backbone,
    embed_by_histogram,
    embed_by_model,
    embed_by_specialists,
    route_by_head,
    summarise,
)
from apparel_embed.evaluation.protocol import EvaluationSet, answered_queries
from apparel_embed.evaluation.roles import COMBINED as COMBINED_MODEL
from apparel_embed.evaluation.roles import FROZEN, GROUPED, HISTOGRAM, SPECIALISTS, UNIFIED
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.street import measure_street
from apparel_embed.evaluation.table import (
    render_absent,
    render_comparisons,
    render_routing,
    render_tables,
)
from apparel_embed.evaluation.training_cost import training_cost_table, training_costs
from apparel_embed.models.config import ModelConfig
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.growth import (
    COMPARED,
    GROWTH_INPUTS,
    Growth,
    check_growth,
    compare_growth,
    growth_of,
)
from apparel_embed.runs.stages.specialist import grouped_specialists, single_specialists
from apparel_embed.runs.stages.start import weights_input
from apparel_embed.store.names import COMBINED, DETECTOR, EVALUATION, STUDENT, VERTICAL_HEAD
from apparel_embed.store.record import Stage, fingerprints

SUMMARY_FILE = "summary.json"
TABLES_FILE = "tables.txt"
COMPARISONS = (
    (UNIFIED, SPECIALISTS),
    (UNIFIED, GROUPED),
    (UNIFIED, COMBINED_MODEL),
    (GROUPED, SPECIALISTS),
    (SPECIALISTS, COMBINED_MODEL),
)


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of a run that are evaluated and reported together.

    Attributes:
      specialists: finished stages, one for each vertical, or none.
      grouped: finished stages of the groups' specialists, which together cover every vertical
        exactly once, or none.
      combined: the stage of the triplet model on all verticals, or None.
      student: the student's stage, or None.
    """

    specialists: Sequence[Stage] = ()
    grouped: Sequence[Stage] = ()
    combined: Stage | None = None
    student: Stage | None = None

    @property
    def stages(self) -> list[Stage]:
        """All stages."""
        found = (*self.specialists, *self.grouped, self.combined, self.student)
        return [stage for stage in found if stage]

    @property
    def by_name(self) -> dict[str, list[Stage]]:
        """The stages of each existing model, by its name in the summary."""
        named = {
            COMBINED_MODEL: [self.combined],
            SPECIALISTS: self.specialists,
            GROUPED: self.grouped,
            UNIFIED: [self.student],
        }
        return {name: [one for one in some if one] for name, some in named.items() if any(some)}


@dataclasses.dataclass(frozen=True)
class Street:
    """The detector to measure and its photographs.

    Attributes:
      detector: the detector's stage.
      photographs: the dataset of whole photographs.
    """

    detector: Stage
    photographs: PreparedDataset


def evaluation_stage(
    run: Run,
    models: Models,
    *,
    split: str,
    init_weights: str,
    seed: int,
    vertical_head: Stage | None = None,
    street: Street | None = None,
    growth: Growth | None = None,
) -> Stage:
    """Evaluates all models on the same queries.

    Writes `summary.json`, the same as a table in `tables.txt`, and the embeddings of each model
    in `embeddings/<model>.parquet`; for a student `items.json` (see `measure_items`) and
    `absent.json` (see `measure_absent`); with a detector `detection.json` and `detection.png`;
    with an earlier student `growth.json`.

    Args:
      run: the run.
      models: the models to evaluate.
      split: split to evaluate on, "val" or "test".
      init_weights: initial weights of the frozen backbone for comparison, as in
        `load_initial_weights`; its architecture is that of the first model.
      seed: seed of the bootstrap.
      vertical_head: the stage of the student's vertical head, to evaluate searches that it routes.
      street: the detector, measured together with the student.
      growth: students to compare the run's student with.

    Raises:
      UserError: there is no model, specialists do not cover every vertical exactly once, the split
        has no query with a match, or an earlier student has no vertical in common or embeddings of
        another length.
    """
    dataset, by_name = run.dataset, models.by_name
    _check(by_name, dataset, split)
    if growth:
        check_growth(growth, dataset, models.student)
    students = growth.inputs if growth else {}
    earlier = run.find(EVALUATION)
    lost = set(GROWTH_INPUTS) & set(earlier.inputs if earlier else ()) - set(students)

    def work(directory: Path) -> dict[str, Any]:
        images = evaluation_set(dataset, split)
        architecture = ModelConfig(**models.stages[0].flags["model"])
        baselines = _baselines(dataset, images, architecture, init_weights, seed)
        embedded = {**baselines, **_embedded(dataset, images, by_name)}
        for name, model in embedded.items():
            path = directory / "embeddings" / f"{name}.parquet"
            write_embeddings(path, images.records, model.embeddings)
        summary = summarise(embedded, images, COMPARISONS, seed)
        if models.student and vertical_head:
            student, head = models.student.directory / "model", vertical_head.directory
            rows, routing = route_by_head(
                UNIFIED, embedded[UNIFIED], dataset, images, student, head, seed
            )
            summary["rows"] += rows
            summary["routing"] = [routing]
        absent, notes = None, []
        if models.student:
            student, new = models.student.directory / "model", embedded[UNIFIED]
            absent = absent_queries(new, dataset, images, student, split, seed)
            write_json(directory / ABSENT_FILE, absent)
            found = measure_items(new.embeddings, images, seed)
            write_json(directory / ITEMS_FILE, found)
            if growth:
                grown = compare_growth(growth, run, models.student, images, new.embeddings, seed)
                write_json(directory / GROWTH_FILE, grown)
                notes = [f"\n{render_growth(grown)}"]
        _write(directory, summary, absent, run.directory, by_name, notes)
        if models.student and street:
            measure_street(
                street.photographs,
                dataset,
                images,
                embedded[UNIFIED].embeddings,
                detector=street.detector.directory / "model",
                model=models.student.directory / "model",
                split=split,
                seed=seed,
                output=directory,
            )
        compared = {COMPARED: growth.directories} if growth else {}
        return {"models": list(embedded), "images": len(images), **compared}

    return run.make(
        EVALUATION,
        work,
        flags={"split": split, "seed": seed},
        inputs={
            **fingerprints(*models.stages, vertical_head, street.detector if street else None),
            **({"photographs": street.photographs.fingerprint} if street else {}),
            **weights_input(init_weights),
            **students,
        },
        # Students to compare with may be named later, but a comparison may not be lost. The head
        # may be trained later.
        overwrite={*GROWTH_INPUTS, VERTICAL_HEAD} - lost,
        size=counted(len(dataset.select(split=split)), "image"),
    )


def weights_of(stages: Sequence[Stage | None]) -> str:
    """Returns the initial weights that models started from; for a file, its fingerprint."""
    inputs = (stage.inputs for stage in stages if stage)
    return next((one["init_weights"] for one in inputs if "init_weights" in one), "none")


def _baselines(
    dataset: PreparedDataset,
    images: EvaluationSet,
    architecture: ModelConfig,
    init_weights: str,
    seed: int,
) -> dict[str, Embedded]:
    """Returns the embeddings of the untrained baselines."""
    if re.fullmatch("[0-9a-f]{64}", init_weights):
        raise UserError(
            f"--init_weights: the run's models started from a weights file with fingerprint "
            f"{init_weights[:16]}; name that file to compare with the frozen backbone"
        )
    records = images.records
    frozen = embed_by_frozen_backbone(dataset, records, architecture, init_weights, seed)
    return {HISTOGRAM: embed_by_histogram(dataset, records), FROZEN: frozen}


def _embedded(
    dataset: PreparedDataset, images: EvaluationSet, by_name: Mapping[str, Sequence[Stage]]
) -> dict[str, Embedded]:
    """Returns the embeddings of each trained model."""
    found: dict[str, Embedded] = {}
    groups: dict[str, dict[tuple[str, ...], Path]] = {}
    for name, stages in by_name.items():
        if name not in (SPECIALISTS, GROUPED):
            found[name] = embed_by_model(dataset, images.records, stages[0].directory / "model")
            continue
        groups[name] = {tuple(one.flags["verticals"]): one.directory / "model" for one in stages}
        is_repeated = name == GROUPED and groups[GROUPED] == groups.get(SPECIALISTS)
        found[name] = (
            found[SPECIALISTS]
            if is_repeated
            else embed_by_specialists(dataset, images, groups[name])
        )
    return found


def _write(
    directory: Path,
    summary: dict[str, Any],
    absent: Mapping[str, Any] | None,
    run_dir: Path,
    by_name: Mapping[str, Sequence[Stage]],
    notes: Sequence[str],
) -> None:
    """Writes the summary, with the costs of trainings added, and its tables."""
    costs = training_costs(run_dir, by_name)
    summary["training_costs"] = [dataclasses.asdict(cost) for cost in costs]
    write_json(directory / SUMMARY_FILE, summary)
    rows, comparisons = without_repetition(summary["rows"], summary["comparisons"])
    shown = {row["model"] for row in rows}
    parts = (
        render_tables(rows),
        "Differences in R@1 within, mean over verticals, paired over the same queries\n",
        render_comparisons(comparisons),
        *render_routing(summary),
        *(render_absent(absent) if absent else []),
        "\nAll trainings behind each model\n",
        plain_text(training_cost_table([cost for cost in costs if cost.model in shown])),
        *notes,
        "",
    )
    (directory / TABLES_FILE).write_text("\n".join(parts), "utf-8")


def _check(by_name: Mapping[str, Sequence[Stage]], dataset: PreparedDataset, split: str) -> None:
    """Raises a UserError if models cannot be evaluated, see `evaluation_stage`."""
    if not by_name:
        raise UserError("no model to evaluate; name --specialists, --combined or --student")
    for stages in (by_name.get(name, []) for name in (SPECIALISTS, GROUPED)):
        known = [vertical for stage in stages for vertical in stage.flags["verticals"]]
        twice = sorted({vertical for vertical in known if known.count(vertical) > 1})
        if twice:
            raise UserError(
                f"more than one specialist for {', '.join(twice)}; name one for each vertical"
            )
        missing = sorted(set(dataset.verticals) - set(known))
        if known and missing:
            raise UserError(
                f"no specialist for {', '.join(missing)}; the named specialists cover "
                f"{', '.join(sorted(known))}"
            )
    if not any(answered_queries(evaluation_set(dataset, split)).values()):
        raise UserError(
            f"{dataset.directory}: split {split} has no query with a match. A query needs another "
            "image of its item in the same split; choose another split with --split"
        )


def models_of(pipeline: PipelineRun) -> Models:
    """Returns the models of a pipeline."""
    if pipeline.grown:
        # Its teachers only cover the new verticals.
        return Models(student=pipeline[STUDENT])
    specialists, grouped = single_specialists(pipeline.run), grouped_specialists(pipeline)
    return Models(specialists, grouped, pipeline[COMBINED], pipeline[STUDENT])


def make(pipeline: PipelineRun) -> list[Stage]:
    """Evaluates every model if the split has a query with a match."""
    if not pipeline.is_measured:
        return []
    training, detector = pipeline.config.specialist, pipeline.get(DETECTOR)
    photographs = pipeline.photographs
    street = Street(detector, photographs) if detector and photographs else None
    stage = evaluation_stage(
        pipeline.run,
        models_of(pipeline),
        split=pipeline.config.split,
        init_weights=training.init_weights,
        seed=training.optimization.seed,
        vertical_head=pipeline.get(VERTICAL_HEAD),
        street=street,
        growth=growth_of(pipeline),
    )
    return [stage]
