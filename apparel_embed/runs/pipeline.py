"""The pipeline: from a manifest, or synthetic garments, to one served embedding model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from apparel_embed.common.cluster import is_chief, read_cluster, wait_for
from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.growing import GrownFrom, grow, plan_growing, replayed_records
from apparel_embed.data.manifest import read_manifest
from apparel_embed.data.prepare import plan_prepare, prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.synthetic.generate import MANIFEST, find_drawn, generate, manifest_table
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.models.backbones import check_initial_weights, try_initial_weights
from apparel_embed.runs.config import REFERENCES, PipelineConfig
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.growth import full_student
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.runs.stages.start import architecture_difference, find_start, old_student
from apparel_embed.serving.exported import SAVED_MODEL
from apparel_embed.store.names import COMBINED, EVALUATION, PHOTOGRAPHS, PREPARED, REPORT, STUDENT
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import only_run, set_aside, stages_from
from apparel_embed.training.readiness import Readiness, check_readiness


@dataclasses.dataclass(frozen=True)
class PipelineResult:
    """The results of a pipeline.

    Attributes:
      dataset: the prepared dataset.
      saved_model: the SavedModel's directory.
      evaluation: stage with `summary.json` and `tables.txt`; None if no query has a match.
      report: stage with `index.html`; None if there is no evaluation.
    """

    dataset: PreparedDataset
    saved_model: Path
    evaluation: Stage | None = None
    report: Stage | None = None


def run_pipeline(config: PipelineConfig) -> PipelineResult:
    """Runs all stages; finished ones are skipped, an interrupted one is resumed.

    Raises:
      UserError: data or flags are wrong, the run was made with other flags, or another process is
        working on it.
    """
    requested, config = config, _settled(config)
    _check(config)
    exists = config.run_dir.is_dir()
    with only_run(config.run_dir):
        if exists and is_chief():
            # Flags that a later stage refuses are reported before any stage starts.
            plan_pipeline(requested).refuse()
        if config.redo_from:
            redone = stages_from(config.run_dir, config.redo_from)
            logging.info(
                "old stages were moved to %s; to resume after an interruption, omit --redo_from",
                set_aside(config.run_dir, redone),
            )
        if not exists:
            try_initial_weights(config.specialist.model.backbone, config.specialist.init_weights)
        dataset, grown = _data(config)
        readiness = _check_data(config, dataset, grown)
        for note in readiness.notes:
            logging.warning("%s", note)
        pipeline = PipelineRun(
            Run(config.run_dir, dataset),
            config,
            STAGES,
            readiness.is_measured,
            _prepared(_whole(config), config.processes) if config.detector else None,
            grown=grown,
        )
        pipeline.make_stages()
        saved_model = pipeline[SAVED_MODEL].directory
        return PipelineResult(dataset, saved_model, pipeline.get(EVALUATION), pipeline.get(REPORT))


def plan_pipeline(config: PipelineConfig) -> StagePlan:
    """Returns the plan of `run_pipeline` without writing anything; raises the same errors.

    The plan's `refuse` and `render` report stages that were made with other flags.
    """
    config = _settled(config)
    _check(config)
    plan = StagePlan(config.run_dir, config.redo_from)
    dataset, grown = _plan_data(config, plan)
    readiness = _check_data(config, dataset, grown)
    plan.notes += readiness.notes
    plan.train_images = len(dataset.select(split="train"))
    run = Run(config.run_dir, dataset, plan.access)
    photographs = _plan_prepared(config, _whole(config), plan) if config.detector else None
    PipelineRun(run, config, STAGES, readiness.is_measured, photographs, grown=grown).make_stages()
    return plan


def _settled(config: PipelineConfig) -> PipelineConfig:
    """Returns a configuration with the settings that follow from the earlier runs it names.

    Raises:
      UserError: a grown run has another run to start from or to align to.
    """
    old = config.growth.grow_from
    if old is None:
        return _with_start(config)
    if config.specialist.init_from or config.align_to != COMBINED:
        raise UserError(
            f"--grow_from={old} already starts from that run and aligns to it; remove --init_from "
            "and --align_to"
        )
    return dataclasses.replace(
        config,
        specialist=dataclasses.replace(config.specialist, init_from=old),
        student=dataclasses.replace(config.student, init_from=old),
        specialists_start_from_combined=True,
        start_from_combined=False,
        align_to=str(old),
    )


def _with_start(config: PipelineConfig) -> PipelineConfig:
    """Returns a configuration with the model that its student starts from decided."""
    if config.start_from_combined is not None:
        return config
    student, align_to = config.student, config.align_to
    if student.init_from is None and align_to not in REFERENCES:
        dim = student.model.embedding_dim
        stage = old_student("align_to", Path(align_to), config.run_dir, dim)
        if not architecture_difference(stage, student.model):
            student = dataclasses.replace(student, init_from=Path(align_to))
    return dataclasses.replace(
        config, student=student, start_from_combined=student.init_from is None
    )


def _check(config: PipelineConfig) -> None:
    """Raises a UserError if a training cannot start as configured, before any has begun."""
    if config.redo_from and read_cluster() is not None:
        raise UserError(
            "--redo_from cannot be used while TF_CONFIG is set, as only one process may move "
            "stages; run it once without TF_CONFIG"
        )
    if config.align_to not in REFERENCES:
        flag = "grow_from" if config.growth.grow_from else "align_to"
        dim = config.student.model.embedding_dim
        old_student(flag, Path(config.align_to), config.run_dir, dim)
        full_student(config.growth.growth_compare_to)
    elif config.growth.growth_compare_to:
        raise UserError("--growth_compare_to requires --grow_from or --align_to of an earlier run")
    first = STUDENT if config.growth.grow_from else COMBINED
    for training, name in ((config.specialist, first), (config.student, STUDENT)):
        check_initial_weights(training.model.backbone, training.init_weights)
        find_start(None, training, (name,), config.run_dir)


def _check_data(
    config: PipelineConfig, dataset: PreparedDataset, grown: GrownFrom | None
) -> Readiness:
    """Raises a UserError that lists all problems of the data that would make the run fail."""
    if len(dataset.verticals) < 2:
        raise UserError(
            f"{dataset.directory}: expected at least two verticals, got only "
            f"{', '.join(dataset.verticals)}; for one vertical, train only its specialist: "
            "tools/train_specialist.py --specialist_start=none"
        )
    readiness = check_readiness(
        grown.new if grown else dataset,
        min_images=config.specialist.min_images,
        split=config.split,
        small_verticals=config.small_verticals,
        specialists_start_from_combined=config.specialists_start_from_combined,
    )
    if readiness.problems:
        raise UserError(f"{dataset.directory}: {' '.join(readiness.problems)}")
    if grown:
        answered = answered_queries(evaluation_set(dataset, config.split))
        readiness = dataclasses.replace(readiness, is_measured=any(answered.values()))
    return readiness


def _data(config: PipelineConfig) -> tuple[PreparedDataset, GrownFrom | None]:
    preparing = _single(config)
    # Raises its errors before anything is drawn.
    further = _without_known(config, preparing) if config.growth.grow_from else None
    if config.synthetic is not None and is_chief():
        drawn = generate(config.synthetic, _drawn_directory(config), config.processes)
        logging.info("synthetic garments: %s", drawn.contact_sheet)
    if further is None:
        return _prepared(preparing, config.processes), None
    grown = _grown_from(config, _prepared(further, config.processes))
    output = Path(preparing.output)
    if is_chief():
        return grow(grown, output), grown
    wait_for(lambda: output if output.is_dir() else None, str(output))
    return PreparedDataset.open(output), grown


def _grown_from(config: PipelineConfig, new: PreparedDataset) -> GrownFrom:
    """Returns the parts of a grown run's dataset."""
    old = PreparedDataset.open(Path(config.align_to) / PREPARED)
    seed = config.student.optimization.seed
    return GrownFrom(old, replayed_records(old, config.growth.replay, seed), new)


def _without_known(config: PipelineConfig, preparing: PrepareConfig) -> PrepareConfig:
    """Returns the configuration that prepares the verticals missing in the earlier run.

    Raises:
      UserError: none is missing.
    """
    known = PreparedDataset.open(Path(config.align_to) / PREPARED).verticals
    names: Sequence[str] = config.synthetic.verticals if config.synthetic else ()
    names = names or read_manifest(preparing.manifest)["vertical"].unique().to_pylist()
    mapping = {name: preparing.map_verticals.get(name, name) for name in names}
    left_out = {name: "" for name, becomes in mapping.items() if becomes in known}
    if not [one for name, one in mapping.items() if one and name not in left_out]:
        raise UserError(
            f"--grow_from={config.align_to}: already has all verticals of the manifest "
            f"({', '.join(sorted(mapping))}); to train on other images of them in its student's "
            f"embedding space, use --align_to={config.align_to} instead"
        )
    if left_out:
        logging.info(
            "skipping the manifest's %s, as --grow_from has them", ", ".join(sorted(left_out))
        )
    return dataclasses.replace(
        preparing,
        output=config.run_dir / f"{PREPARED}-new",
        map_verticals={**preparing.map_verticals, **left_out},
    )


def _prepared(preparing: PrepareConfig, processes: int) -> PreparedDataset:
    """Prepares a dataset; other workers wait for the chief to do so."""
    if is_chief():
        return prepare(preparing, processes=processes)
    directory = Path(preparing.output)
    wait_for(lambda: directory if directory.is_dir() else None, str(directory))
    return PreparedDataset.open(directory)


def _single(config: PipelineConfig) -> PrepareConfig:
    """Returns the configuration that prepares single garments."""
    if config.synthetic is None:
        return config.prepare
    return dataclasses.replace(config.prepare, manifest=_drawn_directory(config) / MANIFEST)


def _whole(config: PipelineConfig) -> PrepareConfig:
    """Returns the configuration that prepares whole photographs."""
    return dataclasses.replace(
        _single(config),
        output=config.run_dir / PHOTOGRAPHS,
        max_side=config.photograph_side,
        photographs=True,
    )


def _drawn_directory(config: PipelineConfig) -> Path:
    return config.run_dir / "synthetic"


def _plan_data(config: PipelineConfig, plan: StagePlan) -> tuple[PreparedDataset, GrownFrom | None]:
    """Plans the steps to the dataset; returns it, or a dataset with its rows but no images."""
    if config.synthetic is not None:
        output = _drawn_directory(config)
        is_drawn = find_drawn(config.synthetic, output)
        images = counted(config.synthetic.images, "image")
        plan.add(output, *(("finished", "") if is_drawn else ("to do", f"{images} to draw")))
    preparing = _single(config)
    if config.growth.grow_from is None:
        return _plan_prepared(config, preparing, plan), None
    new = _plan_prepared(config, _without_known(config, preparing), plan)
    grown = _grown_from(config, new)
    output = Path(preparing.output)
    found = plan_growing(grown, output)
    plan.add(output, found.state, f"{counted(found.todo, 'image')}" if found.todo else "")
    return found.dataset, grown


def _plan_prepared(
    config: PipelineConfig, preparing: PrepareConfig, plan: StagePlan
) -> PreparedDataset:
    """Plans the preparation of a dataset; returns it as in `_plan_data`."""
    table = None
    if config.synthetic is not None and not find_drawn(config.synthetic, _drawn_directory(config)):
        table = manifest_table(config.synthetic)
    found = plan_prepare(preparing, table)
    output = Path(preparing.output)
    plan.add(output, found.state, f"{counted(found.todo, 'image')}" if found.todo else "")
    if found.todo:
        plan.doubt()
    return found.dataset
