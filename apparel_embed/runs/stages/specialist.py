"""The stages of specialists, one per group of verticals, and of combined models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.text import counted
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.start import find_start
from apparel_embed.runs.stages.training import training_stage
from apparel_embed.runs.stages.views import read_views
from apparel_embed.store.names import COMBINED, COMBINED_START, SPECIALIST, specialist_name
from apparel_embed.store.record import Stage, Workload
from apparel_embed.training.config import SpecialistConfig
from apparel_embed.training.specialist import train_specialist

# Offset between the seeds of one run's models, so that runs with adjacent seeds share no seed.
_SEEDS_APART = 1_000_003
# The combined model for comparison has the steps of all other trainings, so no flag sets them.
_STEPS_FLAGS = {COMBINED_START: "--combined_steps", COMBINED: ""}


def specialist_stage(
    run: Run,
    verticals: Sequence[str],
    config: SpecialistConfig,
    name: str | None = None,
    start: Stage | None = None,
    further_runs: Sequence[Path] = (),
    earlier: Sequence[str] = (),
) -> Stage:
    """Trains the specialist of a group; the model is in `<stage>/model`.

    No training is done twice: a finished training of the same verticals under the name of a group's
    specialist or of the combined model is copied.

    Without a model of this run to start from, and if the configuration names an earlier run
    (`init_from`), it starts from that run's specialist of the same verticals, or else from its
    combined model; the combined model starts from the combined one.

    Args:
      run: the run.
      verticals: the verticals of the group.
      config: how to train.
      name: name of the stage; by default made from the verticals.
      start: the stage of this run with the model whose weights it starts from, and keeps if
        training does not improve on split val.
      further_runs: directories of other runs in which the same training may be finished.
      earlier: names of the earlier run's stages to start from, if not the usual ones.

    Raises:
      UserError: a vertical is unknown, the stage was made with other flags or inputs, or the
        earlier run has no model to start from.
    """
    verticals = sorted(verticals)
    dataset = run.dataset
    # Also refuses an unknown vertical before a directory is created.
    records = dataset.select(split="train", verticals=verticals)
    optimization = config.optimization.settled(len(dataset.select(split="train")))
    config = dataclasses.replace(config, optimization=optimization)
    same = (specialist_name(verticals), COMBINED)
    name = name or same[0]
    earlier = earlier or ((COMBINED,) if name in (COMBINED, COMBINED_START) else same)

    def train(directory: Path, model: Path | None, views: Stage | None) -> dict[str, Any]:
        features = read_views(views, dataset, records)
        return train_specialist(dataset, verticals, config, directory, name, model, features)

    steps, batch = optimization.steps, f"{config.items_per_batch} x {config.images_per_item}"
    return training_stage(
        run,
        name,
        config,
        find_start(start, config, earlier, run.directory),
        train,
        workload=Workload(triplet_steps=steps),
        size=f"{counted(steps, 'step')} of {batch} images, out of {len(records):,}",
        steps_flag=_STEPS_FLAGS.get(name, "--specialist_steps"),
        flags={"verticals": verticals},
        reuse_from=[place / one for place in (run.directory, *further_runs) for one in same],
    )


def single_specialists(run: Run) -> list[Stage]:
    """Returns the finished specialist stages of all single verticals; empty if one is missing."""
    stages = [run.find(specialist_name([vertical])) for vertical in run.dataset.verticals]
    found = [stage for stage in stages if stage]
    return found if len(found) == len(stages) else []


def grouped_specialists(pipeline: PipelineRun) -> list[Stage]:
    """Returns the specialist stages of a pipeline's groups."""
    by_name = {stage.name: stage for stage in pipeline.stages[SPECIALIST]}
    return [by_name[specialist_name(group)] for group in pipeline.groups]


def start_of_specialists(pipeline: PipelineRun) -> Stage | None:
    """Returns the combined model's stage if specialists start from it, else None."""
    return pipeline[COMBINED_START] if pipeline.config.specialists_start_from_combined else None


def make(pipeline: PipelineRun) -> list[Stage]:
    """Trains the specialists of groups, and those of single verticals if requested."""
    config = pipeline.config
    run = pipeline.teaching
    verticals = run.dataset.verticals if config.single_specialists else ()
    wanted = list(dict.fromkeys([*pipeline.groups, *((vertical,) for vertical in verticals)]))
    starts = pipeline.stages[COMBINED_START] if config.specialists_start_from_combined else [None]
    trainings = [(number, group) for number in range(len(starts)) for group in wanted]
    stages = []
    for count, (number, group) in enumerate(trainings, start=1):
        run.access.log("specialist %d of %d: %s", count, len(trainings), " + ".join(group))
        training = seed_apart(config.specialist.for_verticals(len(group)), number)
        name = specialist_name(group, number)
        stages.append(specialist_stage(run, group, training, name, starts[number]))
    return stages


def seed_apart(training: SpecialistConfig, number: int) -> SpecialistConfig:
    """Returns a training with the seed that belongs to combined model `number`, from 0."""
    seed = training.optimization.seed + number * _SEEDS_APART
    return dataclasses.replace(
        training, optimization=dataclasses.replace(training.optimization, seed=seed)
    )
