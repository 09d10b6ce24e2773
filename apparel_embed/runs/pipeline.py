"""The whole way: from a manifest, or synthetic garments, to one served embedding model."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.common.cluster import is_chief, read_cluster, wait_for
from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.common.text import counted
from apparel_embed.data.prepare import PrepareConfig, plan_prepare, prepare
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.synthetic.generate import MANIFEST, find_drawn, generate, manifest_table
from apparel_embed.data.synthetic.world import SyntheticConfig
from apparel_embed.distillation.targets import TargetsConfig
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.strategies import Groups
from apparel_embed.models.backbones import check_initial_weights, fetch_initial_weights
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.previous import previous_stage
from apparel_embed.runs.stages.grouping import grouping_stage, plan_grouping
from apparel_embed.runs.stages.serving import export_stage, vertical_head_stage
from apparel_embed.runs.stages.student import (
    find_reference,
    student_stage,
    targets_stage,
)
from apparel_embed.runs.stages.summaries import summaries_stage
from apparel_embed.runs.stages.training import (
    COMBINED,
    COMBINED_START,
    STUDENT,
    combined_start_name,
    evaluation_stage,
    report_stage,
    single_specialists,
    specialist_stage,
    student_teachers,
)
from apparel_embed.serving.saved_model import ExportConfig
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import REAL, StageAccess, only_run, set_aside, stages_from
from apparel_embed.training.readiness import JOIN, SMALL_VERTICALS, Readiness, check_readiness
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

# Between the seeds of combined models, so that those of runs with neighbouring seeds differ, too.
_SEEDS_APART = 1_000_003


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """What the whole way is made of.

    Attributes:
      run_dir: where everything goes.
      synthetic: garments to draw and prepare, or None where `prepare` names a manifest.
      prepare: how to prepare; its output is a directory of the run.
      specialist: how the specialist of one vertical is trained. That of a group is trained alike,
        for as many steps as its verticals' specialists together.
      grouping: how verticals are grouped.
      student: how the student is trained.
      align_to: onto whose space targets are rotated, one of `REFERENCES`.
      targets: how targets are made.
      small_verticals: what becomes of verticals that are too small for a specialist, one of
        `SMALL_VERTICALS`.
      specialists_start_from_combined: whether specialists start from the combined model's weights,
        else as their configuration says.
      start_from_combined: whether the student does.
      processes: for work on pictures.
      vertical_head: whether the served model tells a picture's vertical.
      export: how the SavedModel is exported.
      redo_from: names of stages to make anew, with all that was made from them.
    """

    run_dir: Path
    synthetic: SyntheticConfig | None
    prepare: PrepareConfig
    specialist: SpecialistConfig
    student: StudentConfig
    combined_steps: int = setting(
        450,
        "training steps of the combined model for each vertical, before specialists and student "
        "start from it; the combined model that they are compared with then goes on for as many "
        "steps as all of them take",
        1,
    )
    combined_learning_rate: float | None = setting(
        None,
        "learning rate of the combined model at its peak; by default that of specialists",
        0.0,
        10.0,
        seldom=True,
    )
    combined_seeds: int = setting(
        1,
        "combined models, alike but for their seeds, that teach the student beside specialists; "
        "all start from the first",
        1,
        100,
        seldom=True,
    )
    grouping: SearchConfig = SearchConfig()
    align_to: str = COMBINED
    targets: TargetsConfig = TargetsConfig()
    small_verticals: str = setting(
        JOIN,
        "what becomes of verticals with fewer than two items to train on: "
        + "; ".join(f"{name}, {what}" for name, what in SMALL_VERTICALS.items()),
        choices=SMALL_VERTICALS,
        seldom=True,
    )
    single_specialists: bool = setting(
        True,
        "train one specialist per vertical, to teach and to compare with, whatever the groups",
        seldom=True,
    )
    specialists_start_from_combined: bool = True
    start_from_combined: bool = True
    split: str = "test"
    processes: int = 1
    measure_speed: bool = True
    vertical_head: bool = False
    export: ExportConfig = ExportConfig()
    redo_from: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class PipelineResult:
    """Where the results are.

    Attributes:
      dataset: the prepared dataset.
      saved_model: the SavedModel's directory.
      evaluation: stage with `summary.json` and `tables.txt`; None where no query has an answer.
      report: stage with `index.html`; None likewise.
    """

    dataset: PreparedDataset
    saved_model: Path
    evaluation: Stage | None = None
    report: Stage | None = None


def run_pipeline(config: PipelineConfig) -> PipelineResult:
    """Walks the whole way; what is finished is skipped, what was interrupted goes on.

    Raises:
      UserError: if data or flags are wrong, the run was made with other flags, or another process
        works on it.
    """
    _check(config)
    is_there = config.run_dir.is_dir()
    with only_run(config.run_dir):
        if is_there and is_chief():
            # A flag that a later stage refuses is told before a stage of other flags is begun.
            plan_pipeline(config).refuse()
        if config.redo_from:
            redone = stages_from(config.run_dir, config.redo_from)
            logging.info(
                "old stages are kept in %s; if this call is interrupted, leave out --redo_from to "
                "go on",
                set_aside(config.run_dir, redone),
            )
        fetch_initial_weights(config.specialist.model.backbone, config.specialist.init_weights)
        dataset = _data(config)
        readiness = _check_data(config, dataset)
        for note in readiness.notes:
            logging.warning("%s", note)
        combined_start = _combined_start(config, dataset, REAL)
        found = grouping_stage(
            config.run_dir,
            dataset,
            config.grouping,
            config.specialist,
            _specialists_start(config, combined_start),
        )
        groups = found.result["groups"]
        return _walk(config, dataset, combined_start, groups, readiness.is_measured, REAL)


def plan_pipeline(config: PipelineConfig) -> StagePlan:
    """Tells what `run_pipeline` would do, and writes nothing; its errors are that one's.

    That stages were made with other flags is told by the plan's `refuse` and `render`.
    """
    _check(config)
    plan = StagePlan(config.run_dir, config.redo_from)
    dataset = _plan_data(config, plan)
    readiness = _check_data(config, dataset)
    plan.notes += readiness.notes
    plan.of(dataset)
    combined_start = _combined_start(config, dataset, plan.access)
    groups = plan_grouping(
        plan,
        config.run_dir,
        dataset,
        config.grouping,
        config.specialist,
        _specialists_start(config, combined_start),
    )
    _walk(config, dataset, combined_start, groups, readiness.is_measured, plan.access)
    return plan


def _check(config: PipelineConfig) -> None:
    """Raises a UserError if trainings cannot start with what is to be, before any has begun."""
    if config.redo_from and read_cluster() is not None:
        raise UserError(
            "--redo_from cannot be used while TF_CONFIG is set: only one process may move stages. "
            "Run it once without TF_CONFIG"
        )
    for training in (config.specialist, config.student):
        check_initial_weights(training.model.backbone, training.init_weights)
    _check_previous_run(config)


def _check_data(config: PipelineConfig, dataset: PreparedDataset) -> Readiness:
    """Raises a UserError that lists all for which the run could not end well, if there is any."""
    if len(dataset.verticals) < 2:
        raise UserError(
            f"{dataset.directory}: has one vertical only ({', '.join(dataset.verticals)}); "
            "with one vertical its specialist is all you need: tools/train_specialist.py "
            "--specialist_start=none"
        )
    readiness = check_readiness(
        dataset,
        min_pictures=config.specialist.min_pictures,
        split=config.split,
        small_verticals=config.small_verticals,
        specialists_start_from_combined=config.specialists_start_from_combined,
    )
    if readiness.problems:
        raise UserError(f"{dataset.directory}: {' '.join(readiness.problems)}")
    return readiness


def _walk(
    config: PipelineConfig,
    dataset: PreparedDataset,
    combined_start: Stage,
    groups: Groups,
    is_measured: bool,
    access: StageAccess,
) -> PipelineResult:
    run_dir = config.run_dir
    models = _train(config, dataset, combined_start, groups, access)
    head = (
        vertical_head_stage(run_dir, dataset, models["student"], access)
        if config.vertical_head
        else None
    )
    export = functools.partial(
        export_stage,
        run_dir,
        dataset,
        models["student"],
        config.export,
        vertical_head=head,
        access=access,
    )
    if not is_measured:
        return PipelineResult(dataset, export().directory)
    evaluation = evaluation_stage(
        run_dir,
        dataset,
        split=config.split,
        **models,
        init_weights=config.specialist.init_weights,
        seed=config.specialist.optimization.seed,
        vertical_head=head,
        access=access,
    )
    exported = export()
    report = report_stage(
        run_dir,
        dataset,
        evaluation,
        **models,
        export=exported,
        measure_speed=config.measure_speed,
        access=access,
    )
    summaries_stage(run_dir, dataset, evaluation, access)
    return PipelineResult(dataset, exported.directory, evaluation, report)


def _check_previous_run(config: PipelineConfig) -> None:
    """Raises a UserError if trainings cannot start from the earlier run, before any has begun."""
    specialist, student = config.specialist, config.student
    if specialist.init_from:
        previous_stage(specialist.init_from, (COMBINED,), specialist.model, config.run_dir)
    if student.init_from:
        previous_stage(student.init_from, (STUDENT,), student.model, config.run_dir)


def _combined_start(
    config: PipelineConfig, dataset: PreparedDataset, access: StageAccess, number: int = 0
) -> Stage:
    """Trains a combined model as far as specialists and student start from it.

    Args:
      config: of the pipeline.
      dataset: a prepared dataset.
      access: how stages are made.
      number: which of `combined_seeds`.
    """
    access.tell("combined model %d of %d", number + 1, config.combined_seeds)
    training = _combined(config, dataset, config.combined_steps * len(dataset.verticals))
    seeded = dataclasses.replace(
        training.optimization, seed=training.optimization.seed + number * _SEEDS_APART
    )
    return specialist_stage(
        config.run_dir,
        dataset,
        dataset.verticals,
        dataclasses.replace(training, optimization=seeded),
        combined_start_name(number),
        access=access,
    )


def _combined(config: PipelineConfig, dataset: PreparedDataset, steps: int) -> SpecialistConfig:
    """Returns the training of a combined model by some steps."""
    training = config.specialist.for_steps(steps, verticals=len(dataset.verticals))
    if config.combined_learning_rate is None:
        return training
    optimization = dataclasses.replace(
        training.optimization, learning_rate=config.combined_learning_rate
    )
    return dataclasses.replace(training, optimization=optimization)


def _specialists_start(config: PipelineConfig, combined_start: Stage) -> Stage | None:
    return combined_start if config.specialists_start_from_combined else None


def _train(
    config: PipelineConfig,
    dataset: PreparedDataset,
    combined_start: Stage,
    groups: Groups,
    access: StageAccess,
) -> dict[str, Any]:
    """Trains all models; returns their stages as evaluation and report take them."""
    run_dir, verticals = config.run_dir, dataset.verticals
    for number in range(1, config.combined_seeds):
        _combined_start(config, dataset, access, number)
    alone = [(vertical,) for vertical in verticals] if config.single_specialists else []
    wanted = list(dict.fromkeys([*map(tuple, groups), *alone]))
    specialists = {}
    for number, group in enumerate(wanted, start=1):
        access.tell("specialist %d of %d: %s", number, len(wanted), " + ".join(group))
        training = config.specialist.for_verticals(len(group))
        specialists[group] = specialist_stage(
            run_dir,
            dataset,
            group,
            training,
            start=_specialists_start(config, combined_start),
            access=access,
        )
    grouped = [specialists[tuple(group)] for group in groups]
    teachers = student_teachers(run_dir, verticals, grouped, access)
    student = _train_student(config, dataset, teachers, combined_start, access)
    steps = sum(
        stage.flags["optimization"]["steps"]
        for stage in (*teachers, student)
        if stage.name != COMBINED_START
    )
    access.tell("combined model to compare with: %d further steps", steps)
    combined = specialist_stage(
        run_dir,
        dataset,
        verticals,
        _combined(config, dataset, steps),
        COMBINED,
        start=combined_start,
        access=access,
    )
    return {
        "specialists": single_specialists(run_dir, verticals, access),
        "grouped": grouped,
        "combined": combined,
        "student": student,
    }


def _train_student(
    config: PipelineConfig,
    dataset: PreparedDataset,
    teachers: list[Stage],
    combined_start: Stage,
    access: StageAccess,
) -> Stage:
    """Exports targets and trains the student on them; returns its stage."""
    reference = find_reference(
        config.align_to,
        config.run_dir,
        teachers,
        init_weights=config.specialist.init_weights,
        seed=config.specialist.optimization.seed,
        access=access,
    )
    targets = targets_stage(
        config.run_dir, dataset, teachers, reference, config.targets, access=access
    )
    start = combined_start if config.start_from_combined else None
    return student_stage(config.run_dir, dataset, targets, config.student, start, access=access)


def _data(config: PipelineConfig) -> PreparedDataset:
    if not is_chief():
        directory = Path(config.prepare.output)
        wait_for(lambda: directory if directory.is_dir() else None, str(directory))
        return PreparedDataset.open(directory)
    if config.synthetic is None:
        return prepare(config.prepare, processes=config.processes)
    drawn = generate(config.synthetic, config.run_dir / "synthetic", config.processes)
    logging.info("synthetic garments: %s", drawn.contact_sheet)
    return prepare(
        dataclasses.replace(config.prepare, manifest=drawn.manifest), processes=config.processes
    )


def _plan_data(config: PipelineConfig, plan: StagePlan) -> PreparedDataset:
    """Plans what leads to the dataset; returns it, or one that has its rows but no pictures."""
    preparing, table = config.prepare, None
    if config.synthetic is not None:
        output = config.run_dir / "synthetic"
        preparing = dataclasses.replace(preparing, manifest=output / MANIFEST)
        is_drawn = find_drawn(config.synthetic, output)
        table = None if is_drawn else manifest_table(config.synthetic)
        pictures = counted(config.synthetic.pictures, "picture")
        plan.add(output, *(("finished", "") if is_drawn else ("to do", f"{pictures} to draw")))
    found = plan_prepare(preparing, table)
    output = Path(preparing.output)
    plan.add(output, found.state, f"{counted(found.todo, 'picture')}" if found.todo else "")
    if found.todo:
        plan.doubt()
    return found.dataset
