"""The pipeline: from a manifest, or synthetic garments, to one served embedding model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import logging

from apparel_embed.common.cluster import is_chief, read_cluster, wait_for
from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.prepare import plan_prepare, prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.synthetic.generate import MANIFEST, find_drawn, generate, manifest_table
from apparel_embed.models.backbones import check_initial_weights, fetch_initial_weights
from apparel_embed.runs.config import PipelineConfig
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.runs.stages.start import find_start
from apparel_embed.serving.exported import SAVED_MODEL
from apparel_embed.store.names import COMBINED, EVALUATION, PHOTOGRAPHS, REPORT, STUDENT
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
    _check(config)
    is_there = config.run_dir.is_dir()
    with only_run(config.run_dir):
        if is_there and is_chief():
            # A flag that a later stage refuses is reported before any other stage begins.
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
        pipeline = PipelineRun(
            Run(config.run_dir, dataset),
            config,
            STAGES,
            readiness.is_measured,
            _prepared(_whole(config), config.processes) if config.detector else None,
        )
        pipeline.make_stages()
        saved_model = pipeline[SAVED_MODEL].directory
        return PipelineResult(dataset, saved_model, pipeline.get(EVALUATION), pipeline.get(REPORT))


def plan_pipeline(config: PipelineConfig) -> StagePlan:
    """Tells what `run_pipeline` would do, and writes nothing; its errors are that one's.

    The plan's `refuse` and `render` report stages that were made with other flags.
    """
    _check(config)
    plan = StagePlan(config.run_dir, config.redo_from)
    dataset = _plan_data(config, plan)
    readiness = _check_data(config, dataset)
    plan.notes += readiness.notes
    plan.train_pictures = len(dataset.select(split="train"))
    run = Run(config.run_dir, dataset, plan.access)
    photographs = _plan_prepared(config, _whole(config), plan) if config.detector else None
    PipelineRun(run, config, STAGES, readiness.is_measured, photographs).make_stages()
    return plan


def _check(config: PipelineConfig) -> None:
    """Raises a UserError if a training cannot start as configured, before any has begun."""
    if config.redo_from and read_cluster() is not None:
        raise UserError(
            "--redo_from cannot be used while TF_CONFIG is set: only one process may move stages. "
            "Run it once without TF_CONFIG"
        )
    for training, name in ((config.specialist, COMBINED), (config.student, STUDENT)):
        check_initial_weights(training.model.backbone, training.init_weights)
        find_start(None, training, (name,), config.run_dir)


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


def _data(config: PipelineConfig) -> PreparedDataset:
    if config.synthetic is not None and is_chief():
        drawn = generate(config.synthetic, _drawn_directory(config), config.processes)
        logging.info("synthetic garments: %s", drawn.contact_sheet)
    return _prepared(_single(config), config.processes)


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


def _plan_data(config: PipelineConfig, plan: StagePlan) -> PreparedDataset:
    """Plans what leads to the dataset; returns it, or one that has its rows but no pictures."""
    if config.synthetic is not None:
        output = _drawn_directory(config)
        is_drawn = find_drawn(config.synthetic, output)
        pictures = counted(config.synthetic.pictures, "picture")
        plan.add(output, *(("finished", "") if is_drawn else ("to do", f"{pictures} to draw")))
    return _plan_prepared(config, _single(config), plan)


def _plan_prepared(
    config: PipelineConfig, preparing: PrepareConfig, plan: StagePlan
) -> PreparedDataset:
    """Plans the preparing of a dataset; returns as `_plan_data`."""
    table = None
    if config.synthetic is not None and not find_drawn(config.synthetic, _drawn_directory(config)):
        table = manifest_table(config.synthetic)
    found = plan_prepare(preparing, table)
    output = Path(preparing.output)
    plan.add(output, found.state, f"{counted(found.todo, 'picture')}" if found.todo else "")
    if found.todo:
        plan.doubt()
    return found.dataset
