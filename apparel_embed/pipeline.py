"""The whole way: from a manifest, or synthetic garments, to one served embedding model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.cluster import is_chief, wait_for
from apparel_embed.data.prepare import PrepareConfig, plan_prepare, prepare
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.synthetic.generate import MANIFEST, find_drawn, generate, manifest_table
from apparel_embed.data.synthetic.world import SyntheticConfig
from apparel_embed.errors import UserError
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.grouping.stage import grouping_stage, plan_grouping
from apparel_embed.grouping.strategies import Groups
from apparel_embed.models.backbones import check_initial_weights, fetch_initial_weights
from apparel_embed.previous_run import previous_stage
from apparel_embed.runs import REAL, StageAccess, only_run
from apparel_embed.serving.saved_model import ExportConfig
from apparel_embed.serving_stages import export_stage, vertical_head_stage
from apparel_embed.stage_plan import StagePlan
from apparel_embed.stage_record import Stage
from apparel_embed.stages import (
    COMBINED,
    STUDENT,
    evaluation_stage,
    report_stage,
    single_specialists,
    specialist_stage,
)
from apparel_embed.student_stages import (
    UNALIGNED_STUDENT,
    UNALIGNED_TARGETS,
    find_reference,
    student_stage,
    targets_stage,
)
from apparel_embed.summaries_stage import summaries_stage
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig
from apparel_embed.training.targets import TargetsConfig
from apparel_embed.wording import counted


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """What the whole way is made of.

    Attributes:
      run_dir: where everything goes.
      synthetic: garments to draw and prepare, or None where `prepare` names a manifest.
      prepare: how to prepare; its output is a directory of the run.
      specialist: how the specialist of one vertical is trained. That of a group is trained alike,
        for as many steps as its verticals' specialists together; so is the combined model.
      grouping: how verticals are grouped.
      student: how the student is trained.
      align_to: onto whose space targets are rotated, one of `REFERENCES`.
      targets: how targets are made.
      compare_specialists: whether the specialist of every vertical is trained to compare with, also
        where the groups' specialists are the teachers.
      start_from_combined: whether the student starts from the combined model's weights, else as its
        configuration says.
      split: to evaluate on.
      processes: for work on pictures.
      measure_speed: whether the report measures images per second.
      vertical_head: whether the served model tells a picture's vertical.
      export: how the SavedModel is exported.
    """

    run_dir: Path
    synthetic: SyntheticConfig | None
    prepare: PrepareConfig
    specialist: SpecialistConfig
    student: StudentConfig
    grouping: SearchConfig = SearchConfig()
    align_to: str = COMBINED
    targets: TargetsConfig = TargetsConfig()
    compare_specialists: bool = False
    start_from_combined: bool = True
    split: str = "test"
    processes: int = 1
    measure_speed: bool = True
    vertical_head: bool = False
    export: ExportConfig = ExportConfig()


@dataclasses.dataclass(frozen=True)
class PipelineResult:
    """Where the results are.

    Attributes:
      dataset: the prepared dataset.
      evaluation: stage with `summary.json` and `tables.txt`.
      saved_model: the SavedModel's directory.
      report: stage with `index.html`.
    """

    dataset: PreparedDataset
    evaluation: Stage
    saved_model: Path
    report: Stage


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
            plan_pipeline(config)
        fetch_initial_weights(config.specialist.model.backbone, config.specialist.init_weights)
        dataset = _data(config)
        _check_verticals(dataset)
        found = grouping_stage(config.run_dir, dataset, config.grouping, config.specialist)
        return _walk(config, dataset, found.result["groups"], REAL)


def plan_pipeline(config: PipelineConfig) -> StagePlan:
    """Tells what `run_pipeline` would do, and writes nothing; its errors are that one's."""
    _check(config)
    plan = StagePlan(config.run_dir)
    dataset = _plan_data(config, plan)
    _check_verticals(dataset)
    plan.of(dataset)
    groups = plan_grouping(plan, config.run_dir, dataset, config.grouping, config.specialist)
    _walk(config, dataset, groups, plan.access)
    return plan


def _check(config: PipelineConfig) -> None:
    """Raises a UserError if trainings cannot start with what is to be, before any has begun."""
    for training in (config.specialist, config.student):
        check_initial_weights(training.model.backbone, training.init_weights)
    _check_previous_run(config)


def _check_verticals(dataset: PreparedDataset) -> None:
    if len(dataset.verticals) < 2:
        raise UserError(
            f"{dataset.directory}: has one vertical only ({', '.join(dataset.verticals)}); "
            "with one vertical its specialist is all you need: tools/train_specialist.py"
        )


def _walk(
    config: PipelineConfig, dataset: PreparedDataset, groups: Groups, access: StageAccess
) -> PipelineResult:
    run_dir = config.run_dir
    models = _train(config, dataset, groups, access)
    head = (
        vertical_head_stage(run_dir, dataset, models["student"], access)
        if config.vertical_head
        else None
    )
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
    export = export_stage(
        run_dir, dataset, models["student"], config.export, vertical_head=head, access=access
    )
    report = report_stage(
        run_dir,
        dataset,
        evaluation,
        **models,
        export=export,
        measure_speed=config.measure_speed,
        access=access,
    )
    summaries_stage(run_dir, dataset, evaluation, access)
    return PipelineResult(dataset, evaluation, export.directory, report)


def _check_previous_run(config: PipelineConfig) -> None:
    """Raises a UserError if trainings cannot start from the earlier run, before any has begun."""
    specialist, student = config.specialist, config.student
    if specialist.init_from:
        previous_stage(specialist.init_from, (COMBINED,), specialist.model, config.run_dir)
    if student.init_from:
        # Where groups are kept apart, their number is not known yet, and adds to the length.
        most = math.inf if config.targets.separation else student.model.embedding_dim
        previous_stage(student.init_from, (STUDENT,), student.model, config.run_dir, most)


def _train(
    config: PipelineConfig, dataset: PreparedDataset, groups: Groups, access: StageAccess
) -> dict[str, Any]:
    """Trains all models; returns their stages as evaluation and report take them."""
    run_dir, verticals = config.run_dir, dataset.verticals
    grouped = []
    for number, group in enumerate(groups, start=1):
        access.tell("specialist %d of %d: %s", number, len(groups), " + ".join(group))
        training = config.specialist.for_verticals(len(group))
        grouped.append(specialist_stage(run_dir, dataset, group, training, access=access))
    if config.compare_specialists:
        for vertical in verticals:
            access.tell("specialist to compare with: %s", vertical)
            specialist_stage(run_dir, dataset, [vertical], config.specialist, access=access)
    combined = specialist_stage(
        run_dir,
        dataset,
        verticals,
        config.specialist.for_verticals(len(verticals)),
        COMBINED,
        access=access,
    )
    return {
        "specialists": single_specialists(run_dir, verticals, access),
        "grouped": grouped,
        "combined": combined,
        "student": _train_student(config, dataset, grouped, combined, access),
    }


def _train_student(
    config: PipelineConfig,
    dataset: PreparedDataset,
    specialists: list[Stage],
    combined: Stage,
    access: StageAccess,
) -> Stage:
    """Exports targets and trains the student on them; returns its stage.

    To align targets to a student there must be one: an earlier one, trained alike on targets
    that are neither aligned nor kept apart, so that its space is as long as the specialists'.
    """
    run_dir = config.run_dir
    start = combined if config.start_from_combined else None
    if config.align_to == "student":
        plain = dataclasses.replace(config.targets, separation=0.0)
        unaligned = targets_stage(
            run_dir, dataset, specialists, None, plain, UNALIGNED_TARGETS, access
        )
        student_stage(run_dir, dataset, unaligned, config.student, start, UNALIGNED_STUDENT, access)
    reference = find_reference(
        config.align_to,
        run_dir,
        dataset,
        specialists,
        init_weights=config.specialist.init_weights,
        seed=config.specialist.optimization.seed,
        access=access,
    )
    targets = targets_stage(run_dir, dataset, specialists, reference, config.targets, access=access)
    model = config.student.model
    # One dimension for each group, if they are kept apart.
    dim = model.embedding_dim + (len(specialists) if config.targets.separation else 0)
    training = dataclasses.replace(
        config.student, model=dataclasses.replace(model, embedding_dim=dim)
    )
    return student_stage(run_dir, dataset, targets, training, start, access=access)


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
