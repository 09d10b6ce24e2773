"""The stages of a run: each one a directory, made once from flags and fingerprinted inputs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_json, write_json
from apparel_embed.common.text import plain_text
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.evaluation.models import (
    embed_by_frozen_backbone,
    embed_by_histogram,
    embed_by_model,
    embed_by_specialists,
    route_by_head,
    summarise,
)
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.roads import road_cost, roads_table
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import render_comparisons, render_routing, render_tables
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.report.build import write_report
from apparel_embed.report.inputs import Training, load_inputs
from apparel_embed.runs.previous import (
    INIT_FROM,
    model_of,
    previous_input,
    previous_result,
    previous_stage,
    weights_input,
)
from apparel_embed.runs.stages.views import read_views, views_input, views_stage
from apparel_embed.store.record import Stage, find_stage
from apparel_embed.store.runs import REAL, StageAccess
from apparel_embed.training.checkpoints import DIRECTORY as CHECKPOINTS
from apparel_embed.training.specialist import SpecialistConfig, train_specialist
from apparel_embed.training.student import StudentConfig

COMBINED = "combined"
COMBINED_START = "combined-start"
STUDENT = "student"
TARGETS = "targets"
EVALUATION = "evaluation"
SWEEP = "sweep"
COMPRESSION = "compression"
REPORT = "report"
SUMMARY_FILE = "summary.json"
TABLES_FILE = "tables.txt"
COMPARISONS = (
    ("unified", "specialists"),
    ("unified", "grouped_specialists"),
    ("unified", "combined"),
    ("grouped_specialists", "specialists"),
    ("specialists", "combined"),
)
# Names of stages are names of directories, which have at most 255 bytes.
_LONGEST_NAME = 150
# Signs in a vertical's name that part directories, or the verticals of a group.
_NOT_IN_NAMES = re.compile(r"[/\\+]")


def specialist_name(verticals: Sequence[str]) -> str:
    """Returns the name of the stage that trains a group's specialist.

    It is that of one directory, and of no other group: of many verticals it is cut, a sign that
    would lead elsewhere becomes "_", and it ends in a fingerprint of their names then.
    """
    words = (_NOT_IN_NAMES.sub("_", vertical) for vertical in sorted(verticals))
    name = "specialist-" + "+".join(words)
    is_plain = not any(_NOT_IN_NAMES.search(vertical) for vertical in verticals)
    if is_plain and len(name.encode()) <= _LONGEST_NAME:
        return name
    start = name.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{start}-{fingerprint_json(sorted(verticals))[:12]}"


def specialist_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    verticals: Sequence[str],
    config: SpecialistConfig,
    name: str | None = None,
    start: Stage | None = None,
    twins_in: Sequence[Path] = (),
    access: StageAccess = REAL,
) -> Stage:
    """Trains the specialist of a group; the model is in `<stage>/model`.

    No training is done twice: one of the same verticals that is finished by the name of a group's
    specialist, or of the combined model, is copied.

    Where it starts from no model of this run and the configuration names an earlier one
    (`init_from`), it starts from that run's specialist of the same verticals, or from its combined
    model where there is none; the combined model starts from the combined one.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      verticals: those of the group.
      config: how to train.
      name: of the stage; by default made from the verticals.
      start: the stage of this run with the model whose weights it starts from, and keeps where
        training gains nothing on split val.
      twins_in: further runs' directories in which the same training may be finished.
      access: how stages are made.

    Raises:
      UserError: if a vertical is unknown, the stage was made with other flags or inputs, or there
        is nothing to start from in the earlier run.
    """
    verticals = sorted(verticals)
    pictures = len(dataset.select(split="train"))
    config = dataclasses.replace(config, optimization=config.optimization.settled(pictures))
    # Asks for nothing but tells of an unknown vertical before a directory is made.
    dataset.select(verticals=verticals)
    name = name or specialist_name(verticals)
    flags, inputs = made_of(config, dataset)
    names = (specialist_name(verticals), COMBINED)
    previous = None
    if config.init_from and not start:
        roles = (COMBINED,) if name in (COMBINED, COMBINED_START) else names
        previous = previous_stage(config.init_from, roles, config.model, run_dir)

    views = views_stage(run_dir, dataset, config, start, previous, access)

    def work(directory: Path) -> dict[str, Any]:
        records = dataset.select(split="train", verticals=verticals)
        result = train_specialist(
            dataset,
            verticals,
            config,
            directory,
            name,
            start.directory / "model" if start else model_of(previous, name),
            read_views(views, dataset, records),
        )
        return {**result, **previous_result(previous)}

    return access.make(
        run_dir / name,
        flags={"verticals": verticals, **start_flag(start, previous), **flags},
        inputs={**inputs, **start_input(start, previous), **views_input(views)},
        work=report_corrupt_records(dataset, work),
        twins=[place / one for place in (run_dir, *twins_in) for one in names],
        scratch=[CHECKPOINTS],
        together=True,
    )


def start_flag(start: Stage | None, previous: Stage | None) -> dict[str, str]:
    """Returns the flag of a stage that tells where its training starts.

    Args:
      start: the stage of the same run with the model it starts from, or None.
      previous: that of an earlier run, or None.
    """
    return {"start": start.name if start else INIT_FROM if previous else "none"}


def start_input(start: Stage | None, previous: Stage | None) -> dict[str, str]:
    """Returns the input of a stage that its training starts from; arguments as `start_flag`."""
    return {start.name: start.fingerprint} if start else previous_input(previous)


def single_specialists(
    run_dir: Path, verticals: Sequence[str], access: StageAccess = REAL
) -> list[Stage]:
    """Returns the finished stages of every vertical's own specialist, or none if one is missing."""
    stages = [access.find(run_dir / specialist_name([vertical])) for vertical in verticals]
    found = [stage for stage in stages if stage]
    return found if len(found) == len(verticals) else []


def student_teachers(
    run_dir: Path, verticals: Sequence[str], grouped: Sequence[Stage], access: StageAccess = REAL
) -> list[Stage]:
    """Returns all that teach the student, as far as they are finished.

    Args:
      run_dir: the run's directory.
      verticals: of the dataset.
      grouped: specialists that together know every vertical.
      access: how stages are found.

    Returns:
      Those specialists, the specialist of each single vertical, and the combined models that others
      start from, each once.
    """
    names = [COMBINED_START]
    while access.find(run_dir / combined_start_name(len(names))):
        names.append(combined_start_name(len(names)))
    combined = [access.find(run_dir / name) for name in names]
    alone = [access.find(run_dir / specialist_name([vertical])) for vertical in verticals]
    found = [stage for stage in (*grouped, *alone, *combined) if stage]
    return list({stage.name: stage for stage in found}.values())


def combined_start_name(number: int) -> str:
    """Returns the name of the stage of a combined model, counted from 0, that others start from."""
    return f"{COMBINED_START}-{number + 1}" if number else COMBINED_START


def evaluation_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    *,
    split: str,
    specialists: Sequence[Stage],
    grouped: Sequence[Stage],
    combined: Stage | None,
    student: Stage | None,
    init_weights: str,
    seed: int,
    vertical_head: Stage | None = None,
    access: StageAccess = REAL,
) -> Stage:
    """Evaluates all models on the same queries.

    Writes `summary.json`, the same as a table in `tables.txt`, and the embeddings of each model
    in `embeddings/<model>.parquet`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      split: to evaluate on, "val" or "test".
      specialists: finished stages, one for each vertical, or none.
      grouped: finished stages that together know every vertical once, those of the student's
        teachers, or none.
      combined: the stage of the triplet model on all verticals.
      student: the stage of the student.
      init_weights: initial weights of the frozen backbone to compare with, as in
        `load_initial_weights`; its architecture is that of the first stage given.
      seed: of the bootstrap.
      vertical_head: the stage of the student's vertical head, to evaluate searches that it routes.
      access: how stages are made.
    """
    sets = {
        name: {tuple(s.flags["verticals"]): s.directory / "model" for s in some}
        for name, some in (("specialists", specialists), ("grouped_specialists", grouped))
    }
    for groups in sets.values():
        _check_cover(groups, dataset)
    stages = [stage for stage in (*specialists, *grouped, combined, student) if stage]
    if not stages:
        raise UserError("there is no model to evaluate: name specialists, combined or student")
    roads = {
        "combined": [combined] if combined else [],
        "specialists": specialists,
        "grouped_specialists": grouped,
        "unified": [student] if student else [],
    }
    if not any(answered_queries(evaluation_set(dataset, split)).values()):
        raise UserError(
            f"{dataset.directory}: split {split} answers no query: there is nothing to evaluate. A "
            "query needs another image of its item in the same split; name another by --split"
        )
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
        for name, groups in sets.items():
            if groups and groups == sets["specialists"] and name != "specialists":
                models[name] = models["specialists"]
            elif groups:
                models[name] = embed_by_specialists(dataset, pictures, groups)
        if student:
            models["unified"] = embed_by_model(
                dataset, pictures.records, student.directory / "model"
            )
        for name, model in models.items():
            path = directory / "embeddings" / f"{name}.parquet"
            write_embeddings(path, pictures.records, model.embeddings)
        summary = summarise(models, pictures, COMPARISONS, seed)
        if student and vertical_head:
            rows, routing = route_by_head(
                "unified",
                models["unified"],
                dataset,
                pictures,
                student.directory / "model",
                vertical_head.directory,
                seed,
            )
            summary["rows"] += rows
            summary["routing"] = [routing]
        costs = [road_cost(name, run_dir, made) for name, made in roads.items() if made]
        summary["roads"] = [dataclasses.asdict(cost) for cost in costs]
        write_json(directory / SUMMARY_FILE, summary)
        text = "\n".join(
            (
                render_tables(summary["rows"], width=120),
                "Differences in R@1 within, mean over verticals, paired over the same queries\n",
                render_comparisons(summary["comparisons"]),
                *render_routing(summary),
                "\nAll trainings behind each model\n",
                plain_text(roads_table(costs)),
                "",
            )
        )
        (directory / TABLES_FILE).write_text(text, "utf-8")
        return {"models": list(models), "pictures": len(pictures)}

    return access.make(
        run_dir / EVALUATION,
        flags={"split": split, "seed": seed},
        inputs={
            "prepared": dataset.fingerprint,
            **{stage.name: stage.fingerprint for stage in (*stages, vertical_head) if stage},
            **weights_input(init_weights),
        },
        work=report_corrupt_records(dataset, work),
    )


def report_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    evaluation: Stage,
    *,
    specialists: Sequence[Stage],
    grouped: Sequence[Stage],
    combined: Stage | None,
    student: Stage | None,
    export: Stage | None,
    measure_speed: bool,
    access: StageAccess = REAL,
) -> Stage:
    """Writes `index.html`, readable offline, and its figures as PNG files beside it.

    The report only shows what other stages have found, so it is made anew when they change.

    Args:
      run_dir: the run's directory.
      dataset: the prepared dataset that was evaluated.
      evaluation: the stage to report.
      specialists: one for each vertical, if evaluated.
      grouped: those of the groups, if evaluated.
      combined: the stage of the combined model, if evaluated.
      student: the stage of the student, if evaluated.
      export: the stage of a version of the SavedModel, or None.
      measure_speed: whether to measure images per second, which differ from call to call.
      access: how stages are made.
    """
    sets = {"specialists": specialists}
    if any(len(stage.flags["verticals"]) > 1 for stage in grouped):
        sets["grouped_specialists"] = grouped
    trainings = [
        Training("+".join(stage.flags["verticals"]), name, stage)
        for name, stages in sets.items()
        for stage in stages
    ]
    alone = {"combined": combined, "unified": student}
    trainings += [Training(name, name, stage) for name, stage in alone.items() if stage]
    saved_models = {
        name: export.directory
        for name, stage in alone.items()
        if export and stage and export.flags["model"] == stage.name
    }

    sweep, compression, targets = (
        find_stage(run_dir / name) for name in (SWEEP, COMPRESSION, TARGETS)
    )

    def work(directory: Path) -> dict[str, Any]:
        inputs = load_inputs(
            dataset,
            evaluation,
            SUMMARY_FILE,
            trainings,
            saved_models,
            measure_speed,
            sweep.directory if sweep else None,
            compression.directory if compression else None,
            targets,
        )
        return write_report(inputs, directory)

    stages = [evaluation, *(training.stage for training in trainings), sweep, compression, targets]
    return access.make(
        run_dir / REPORT,
        flags={"measure_speed": measure_speed},
        inputs={
            "prepared": dataset.fingerprint,
            **{one.name: one.fingerprint for one in stages if one},
            # By what it is, and not by the number of its version.
            **({"saved_model": export.fingerprint} if export else {}),
        },
        work=report_corrupt_records(dataset, work),
        renewed=True,
    )


def made_of(
    config: SpecialistConfig | StudentConfig, dataset: PreparedDataset
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the flags and input fingerprints that decide the result of a training.

    Args:
      config: of the training.
      dataset: a prepared dataset.
    """
    flags = dataclasses.asdict(config)
    # Where weights are, how often to look up and what to keep in memory change no result.
    del flags["init_weights"], flags["init_from"], flags["input"]["cache_gib"]
    for name in ("log_every", "checkpoint_every", "keep_checkpoints"):
        del flags["loop"][name]
    flags["execution"] = config.execution.decisive()
    # What is as it was before there was a choice makes no other training.
    if not flags["execution"]:
        del flags["execution"]
    if flags["optimization"]["scale_learning_rate"] == "none":
        del flags["optimization"]["scale_learning_rate"]
    if not flags.get("standardise", True):
        del flags["standardise"]
    inputs = {"prepared": dataset.fingerprint, **weights_input(config.init_weights)}
    return flags, inputs


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
