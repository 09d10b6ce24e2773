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
from apparel_embed.runs.stages.start import built_otherwise, find_start, old_student
from apparel_embed.serving.exported import SAVED_MODEL
from apparel_embed.store.names import COMBINED, EVALUATION, PHOTOGRAPHS, PREPARED, REPORT, STUDENT
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import only_run, set_aside, stages_from
from apparel_embed.training.readiness import Readiness, check_readiness


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
    """Runs all stages; finished ones are skipped, an interrupted one is resumed.

    Raises:
      UserError: if data or flags are wrong, the run was made with other flags, or another process
        works on it.
    """
    asked, config = config, _settled(config)
    _check(config)
    is_there = config.run_dir.is_dir()
    with only_run(config.run_dir):
        if is_there and is_chief():
            # A flag that a later stage refuses is reported before any other stage begins.
            plan_pipeline(asked).refuse()
        if config.redo_from:
            redone = stages_from(config.run_dir, config.redo_from)
            logging.info(
                "old stages are kept in %s; if this call is interrupted, leave out --redo_from to "
                "resume",
                set_aside(config.run_dir, redone),
            )
        if not is_there:
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
    """Tells what `run_pipeline` would do, and writes nothing; its errors are that one's.

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
    """Returns a configuration with what follows from the earlier runs that it names, if any.

    Raises:
      UserError: if trainings are to start from another run, or targets are to be aligned to one.
    """
    old = config.growth.grow_from
    if old is None:
        return _with_start(config)
    if config.specialist.init_from or config.align_to != COMBINED:
        raise UserError(
            f"--grow_from={old}: starts from that run, and aligns to it; leave out --init_from and "
            "--align_to"
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
    """Returns a configuration that says where its student starts."""
    if config.start_from_combined is not None:
        return config
    student, align_to = config.student, config.align_to
    if student.init_from is None and align_to not in REFERENCES:
        dim = student.model.embedding_dim
        stage = old_student("align_to", Path(align_to), config.run_dir, dim)
        if not built_otherwise(stage, student.model):
            student = dataclasses.replace(student, init_from=Path(align_to))
    return dataclasses.replace(
        config, student=student, start_from_combined=student.init_from is None
    )


def _check(config: PipelineConfig) -> None:
    """Raises a UserError if a training cannot start as configured, before any has begun."""
    if config.redo_from and read_cluster() is not None:
        raise UserError(
            "--redo_from cannot be used while TF_CONFIG is set: only one process may move stages. "
            "Run it once without TF_CONFIG"
        )
    if config.align_to not in REFERENCES:
        flag = "grow_from" if config.growth.grow_from else "align_to"
        dim = config.student.model.embedding_dim
        old_student(flag, Path(config.align_to), config.run_dir, dim)
        full_student(config.growth.growth_compare_to)
    elif config.growth.growth_compare_to:
        raise UserError("--growth_compare_to needs --grow_from or --align_to of an earlier run")
    first = STUDENT if config.growth.grow_from else COMBINED
    for training, name in ((config.specialist, first), (config.student, STUDENT)):
        check_initial_weights(training.model.backbone, training.init_weights)
        find_start(None, training, (name,), config.run_dir)


def _check_data(
    config: PipelineConfig, dataset: PreparedDataset, grown: GrownFrom | None
) -> Readiness:
    """Raises a UserError that lists all for which the run could not end well, if there is any."""
    if len(dataset.verticals) < 2:
        raise UserError(
            f"{dataset.directory}: has one vertical only ({', '.join(dataset.verticals)}); "
            "with one vertical its specialist is all you need: tools/train_specialist.py "
            "--specialist_start=none"
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
    # It refuses before anything is drawn.
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
    """Returns what the dataset of a run is made of that grows from another."""
    old = PreparedDataset.open(Path(config.align_to) / PREPARED)
    seed = config.student.optimization.seed
    return GrownFrom(old, replayed_records(old, config.growth.replay, seed), new)


def _without_known(config: PipelineConfig, preparing: PrepareConfig) -> PrepareConfig:
    """Returns how to prepare the verticals that the earlier run does not know.

    Raises:
      UserError: if it knows all.
    """
    known = PreparedDataset.open(Path(config.align_to) / PREPARED).verticals
    there: Sequence[str] = config.synthetic.verticals if config.synthetic else ()
    there = there or read_manifest(preparing.manifest)["vertical"].unique().to_pylist()
    mapping = {name: preparing.map_verticals.get(name, name) for name in there}
    left_out = {name: "" for name, becomes in mapping.items() if becomes in known}
    if not [one for name, one in mapping.items() if one and name not in left_out]:
        raise UserError(
            f"--grow_from={config.align_to}: knows all verticals of the manifest "
            f"({', '.join(sorted(mapping))}); to train again on other images of them, in its "
            f"student's space, give --align_to={config.align_to} instead"
        )
    if left_out:
        logging.info(
            "left out, as --grow_from knows them: the manifest's %s", ", ".join(sorted(left_out))
        )
    return dataclasses.replace(
        preparing,
        output=config.run_dir / f"{PREPARED}-new",
        map_verticals={**preparing.map_verticals, **left_out},
    )


def _prepared(preparing: PrepareConfig, processes: int) -> PreparedDataset:
    """Prepares a dataset; workers wait for the chief to do it."""
    if is_chief():
        return prepare(preparing, processes=processes)
    directory = Path(preparing.output)
    wait_for(lambda: directory if directory.is_dir() else None, str(directory))
    return PreparedDataset.open(directory)


def _single(config: PipelineConfig) -> PrepareConfig:
    """Returns how garments are prepared, one by one."""
    if config.synthetic is None:
        return config.prepare
    return dataclasses.replace(config.prepare, manifest=_drawn_directory(config) / MANIFEST)


def _whole(config: PipelineConfig) -> PrepareConfig:
    """Returns how photographs are prepared, whole."""
    return dataclasses.replace(
        _single(config),
        output=config.run_dir / PHOTOGRAPHS,
        max_side=config.photograph_side,
        photographs=True,
    )


def _drawn_directory(config: PipelineConfig) -> Path:
    return config.run_dir / "synthetic"


def _plan_data(config: PipelineConfig, plan: StagePlan) -> tuple[PreparedDataset, GrownFrom | None]:
    """Plans what leads to the dataset; returns it, or one that has its rows but no images."""
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
    """Plans the preparing of a dataset; returns as `_plan_data`."""
    table = None
    if config.synthetic is not None and not find_drawn(config.synthetic, _drawn_directory(config)):
        table = manifest_table(config.synthetic)
    found = plan_prepare(preparing, table)
    output = Path(preparing.output)
    plan.add(output, found.state, f"{counted(found.todo, 'image')}" if found.todo else "")
    if found.todo:
        plan.doubt()
    return found.dataset
