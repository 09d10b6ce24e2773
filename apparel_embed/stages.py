"""The stages of a run: each one a directory, made once from flags and fingerprinted inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings, write_embeddings
from apparel_embed.evaluation.models import (
    embed_by_frozen_backbone,
    embed_by_histogram,
    embed_by_model,
    embed_by_specialists,
    summarise,
)
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import render_comparisons, render_tables
from apparel_embed.files import fingerprint_files, write_json
from apparel_embed.models.embedding import ModelConfig, load_embedding_model
from apparel_embed.report.build import write_report
from apparel_embed.report.inputs import Training, load_inputs
from apparel_embed.runs import Stage, run_stage
from apparel_embed.serving.saved_model import export_saved_model
from apparel_embed.training.specialist import SpecialistConfig, train_specialist
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.targets import Teacher, compute_targets

COMBINED = "combined"
TARGETS = "targets"
STUDENT = "student"
EVALUATION = "evaluation"
SAVED_MODEL = "saved_model"
REPORT = "report"
MODEL_VERSION = "1"
TARGETS_FILE = "targets.parquet"
SUMMARY_FILE = "summary.json"
TABLES_FILE = "tables.txt"
COMPARISONS = (("unified", "specialists"), ("unified", "combined"), ("specialists", "combined"))


def specialist_name(verticals: Sequence[str]) -> str:
    """Returns the name of the stage that trains a group's specialist."""
    return "specialist-" + "+".join(sorted(verticals))


def specialist_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    verticals: Sequence[str],
    config: SpecialistConfig,
    name: str | None = None,
) -> Stage:
    """Trains the specialist of a group; the model is in `<stage>/model`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      verticals: those of the group.
      config: how to train.
      name: of the stage; by default made from the verticals.

    Raises:
      UserError: if a vertical is unknown, or the stage was made with other flags or inputs.
    """
    verticals = sorted(verticals)
    # Asks for nothing but tells of an unknown vertical before a directory is made.
    dataset.select(verticals=verticals)
    name = name or specialist_name(verticals)
    flags, inputs = _made_of(config, dataset)
    return run_stage(
        run_dir / name,
        flags={"verticals": verticals, **flags},
        inputs=inputs,
        work=lambda directory: train_specialist(dataset, verticals, config, directory, name),
    )


def targets_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    specialists: Sequence[Stage],
    reference: Stage | None,
) -> Stage:
    """Exports the student's targets to `<stage>/targets.parquet`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      specialists: finished stages whose verticals do not overlap.
      reference: the stage of the model onto whose space specialists' are rotated, or None.
    """
    teachers = [Teacher(tuple(s.flags["verticals"]), s.directory / "model") for s in specialists]

    def work(directory: Path) -> dict[str, Any]:
        records, targets, report = compute_targets(
            dataset, teachers, reference=reference.directory / "model" if reference else None
        )
        write_embeddings(directory / TARGETS_FILE, records, targets)
        return {"pictures": len(records), "dim": targets.shape[1], "specialists": report}

    return run_stage(
        run_dir / TARGETS,
        flags={"align_to": reference.name if reference else "none"},
        inputs={
            "prepared": dataset.fingerprint,
            **{stage.name: stage.fingerprint for stage in specialists},
            **({reference.name: reference.fingerprint} if reference else {}),
        },
        work=work,
    )


def student_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    targets: Stage,
    config: StudentConfig,
    start: Stage | None = None,
) -> Stage:
    """Trains the student on exported targets; the model is in `<stage>/model`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      targets: the stage that exported them.
      config: how to train.
      start: the stage of the model whose weights the student starts from, or None.
    """
    flags, inputs = _made_of(config, dataset)

    def work(directory: Path) -> dict[str, Any]:
        records, embeddings = read_embeddings(targets.directory / TARGETS_FILE)
        return train_student(
            dataset,
            records,
            embeddings,
            config,
            directory,
            start=start.directory / "model" if start else None,
        )

    return run_stage(
        run_dir / STUDENT,
        flags={"start": start.name if start else "none", **flags},
        inputs={
            **inputs,
            targets.name: targets.fingerprint,
            **({start.name: start.fingerprint} if start else {}),
        },
        work=work,
    )


def evaluation_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    *,
    split: str,
    specialists: Sequence[Stage],
    combined: Stage | None,
    student: Stage | None,
    init_weights: str,
    seed: int,
) -> Stage:
    """Evaluates all models on the same queries.

    Writes `summary.json`, the same as a table in `tables.txt`, and the embeddings of each model
    in `embeddings/<model>.parquet`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      split: to evaluate on, "val" or "test".
      specialists: finished stages that together know every vertical once, or none.
      combined: the stage of the triplet model on all verticals.
      student: the stage of the student.
      init_weights: initial weights of the frozen backbone to compare with, as in
        `load_initial_weights`; its architecture is that of the first stage given.
      seed: of the bootstrap.
    """
    groups = {tuple(s.flags["verticals"]): s.directory / "model" for s in specialists}
    _check_cover(groups, dataset)
    stages = [stage for stage in (*specialists, combined, student) if stage]
    if not stages:
        raise UserError("there is no model to evaluate: name specialists, combined or student")
    architecture = ModelConfig(**stages[0].flags["model"])

    def work(directory: Path) -> dict[str, Any]:
        pictures = evaluation_set(dataset, split)
        models = {
            "colour_histogram": embed_by_histogram(dataset, pictures.records),
            "frozen_backbone": embed_by_frozen_backbone(
                dataset, pictures.records, architecture, init_weights, seed
            ),
        }
        if combined:
            models["combined"] = embed_by_model(
                dataset, pictures.records, combined.directory / "model"
            )
        if groups:
            by_groups = embed_by_specialists(dataset, pictures, groups)
            if all(len(verticals) == 1 for verticals in groups):
                models["specialists"] = by_groups
            models["grouped_specialists"] = by_groups
        if student:
            models["unified"] = embed_by_model(
                dataset, pictures.records, student.directory / "model"
            )
        for name, model in models.items():
            path = directory / "embeddings" / f"{name}.parquet"
            write_embeddings(path, pictures.records, model.embeddings)
        summary = summarise(models, pictures, COMPARISONS, seed)
        write_json(directory / SUMMARY_FILE, summary)
        text = "\n".join(
            (
                render_tables(summary["rows"], width=120),
                "Differences in R@1 within, mean over verticals, paired over the same queries\n",
                render_comparisons(summary["comparisons"]),
                "",
            )
        )
        (directory / TABLES_FILE).write_text(text, "utf-8")
        return {"models": list(models), "pictures": len(pictures)}

    return run_stage(
        run_dir / EVALUATION,
        flags={"split": split, "seed": seed},
        inputs={
            "prepared": dataset.fingerprint,
            **{stage.name: stage.fingerprint for stage in stages},
            **_weights_input(init_weights),
        },
        work=work,
    )


def export_stage(run_dir: Path, model: Stage) -> Stage:
    """Exports a model as `<stage>/1/`, a version directory as TensorFlow Serving wants it."""

    def work(directory: Path) -> dict[str, Any]:
        embedding_model, config = load_embedding_model(model.directory / "model")
        export_saved_model(embedding_model, directory / MODEL_VERSION)
        return dataclasses.asdict(config)

    return run_stage(
        run_dir / SAVED_MODEL,
        flags={"model": model.name},
        inputs={model.name: model.fingerprint},
        work=work,
    )


def report_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    evaluation: Stage,
    *,
    specialists: Sequence[Stage],
    combined: Stage | None,
    student: Stage | None,
    export: Stage | None,
    measure_speed: bool,
) -> Stage:
    """Writes `index.html`, readable offline, and its figures as PNG files beside it.

    The report only shows what other stages have found, so it is made anew when they change.

    Args:
      run_dir: the run's directory.
      dataset: the prepared dataset that was evaluated.
      evaluation: the stage to report.
      specialists: stages that were evaluated.
      combined: the stage of the combined model, if evaluated.
      student: the stage of the student, if evaluated.
      export: the stage of the SavedModel, or None.
      measure_speed: whether to measure images per second, which differ from call to call.
    """
    groups = [tuple(stage.flags["verticals"]) for stage in specialists]
    experts = "specialists" if all(len(group) == 1 for group in groups) else "grouped_specialists"
    trainings = [
        Training("+".join(group), experts, stage) for group, stage in zip(groups, specialists)
    ]
    alone = {"combined": combined, "unified": student}
    trainings += [Training(name, name, stage) for name, stage in alone.items() if stage]
    saved_models = {
        name: export.directory / MODEL_VERSION
        for name, stage in alone.items()
        if export and stage and export.flags["model"] == stage.name
    }

    def work(directory: Path) -> dict[str, Any]:
        inputs = load_inputs(
            dataset, evaluation, SUMMARY_FILE, trainings, saved_models, measure_speed
        )
        return write_report(inputs, directory)

    stages = [
        evaluation,
        *(training.stage for training in trainings),
        *([export] if export else []),
    ]
    return run_stage(
        run_dir / REPORT,
        flags={"measure_speed": measure_speed},
        inputs={
            "prepared": dataset.fingerprint,
            **{one.name: one.fingerprint for one in stages if one},
        },
        work=work,
        renewed=True,
    )


def _made_of(
    config: SpecialistConfig | StudentConfig, dataset: PreparedDataset
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the flags and input fingerprints that decide the result of a training."""
    flags = dataclasses.asdict(config)
    # Where weights are, how often to look up and what to keep in memory change no result.
    del flags["init_weights"], flags["input"]["cache_gib"]
    del flags["loop"]["log_every"], flags["loop"]["checkpoint_every"]
    inputs = {"prepared": dataset.fingerprint, **_weights_input(config.init_weights)}
    return flags, inputs


def _weights_input(init_weights: str) -> dict[str, str]:
    path = Path(init_weights)
    return {"init_weights": fingerprint_files([path]) if path.is_file() else init_weights}


def _check_cover(groups: dict[tuple[str, ...], Path], dataset: PreparedDataset) -> None:
    if not groups:
        return
    known = [vertical for verticals in groups for vertical in verticals]
    twice = sorted({vertical for vertical in known if known.count(vertical) > 1})
    if twice:
        raise UserError(f"more than one specialist for {', '.join(twice)}; name one of them each")
    missing = sorted(set(dataset.verticals) - set(known))
    if missing:
        raise UserError(
            f"no specialist for {', '.join(missing)}; the specialists given know "
            f"{', '.join(sorted(known))}"
        )
