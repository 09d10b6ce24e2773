"""The stages of combined models: triplet models of all verticals."""

from __future__ import annotations

import dataclasses
import math

from apparel_embed.runs.run import PipelineRun
from apparel_embed.runs.stages.specialist import (
    grouped_specialists,
    seed_apart,
    specialist_stage,
)
from apparel_embed.runs.stages.targets import student_teachers
from apparel_embed.store.names import COMBINED, COMBINED_START, STUDENT, combined_start_name
from apparel_embed.store.record import Stage
from apparel_embed.training.config import SpecialistConfig

GROWN_SHARE = 0.5
"""Share of `--combined_steps` for teachers of new verticals that start from an earlier student.

For two seeds of the quickstart, half of the steps gave the same accuracy on split val.
"""


def make_starts(pipeline: PipelineRun) -> list[Stage]:
    """Trains combined models. Specialists start from each of them, the student from the first."""
    run, config = pipeline.teaching, pipeline.config
    verticals, stages = run.dataset.verticals, []
    earlier = (STUDENT,) if pipeline.grown else ()
    steps = config.combined_steps * len(verticals)
    if pipeline.grown:
        steps = math.ceil(GROWN_SHARE * steps)
    for number in range(config.combined_seeds):
        run.access.log("combined model %d of %d", number + 1, config.combined_seeds)
        training = seed_apart(_training(pipeline, steps), number)
        name = combined_start_name(number)
        stages.append(specialist_stage(run, verticals, training, name, earlier=earlier))
    return stages


def make_compared(pipeline: PipelineRun) -> list[Stage]:
    """Continues the first combined model for as many steps as all other trainings together."""
    if pipeline.grown:
        # It would cost as much as the full run that growing avoids.
        return []
    run = pipeline.run
    seeds = pipeline.config.combined_seeds
    others = [*student_teachers(run, grouped_specialists(pipeline), seeds), pipeline[STUDENT]]
    # A training that stopped early, or kept the weights it started from, took fewer steps.
    steps = sum(
        stage.result.get("trained_steps", stage.flags["optimization"]["steps"])
        for stage in others
        if stage.name != COMBINED_START
    )
    run.access.log("combined model for comparison: %d further steps", steps)
    training, start = _training(pipeline, steps), pipeline[COMBINED_START]
    return [specialist_stage(run, run.dataset.verticals, training, COMBINED, start)]


def _training(pipeline: PipelineRun, steps: int) -> SpecialistConfig:
    """Returns the configuration that trains a combined model for `steps` steps."""
    verticals, rate = pipeline.teaching.dataset.verticals, pipeline.config.combined_learning_rate
    training = pipeline.config.specialist.for_steps(steps, verticals=len(verticals))
    optimization = dataclasses.replace(
        training.optimization,
        learning_rate=training.optimization.learning_rate if rate is None else rate,
    )
    return dataclasses.replace(training, optimization=optimization)
