"""The stages of combined models: triplet models of all verticals."""

from __future__ import annotations

import dataclasses

from apparel_embed.runs.run import PipelineRun, StageKind
from apparel_embed.runs.stages.specialist import grouped_specialists, specialist_stage
from apparel_embed.runs.stages.targets import student_teachers
from apparel_embed.store.names import COMBINED, COMBINED_START, STUDENT, combined_start_name
from apparel_embed.store.record import Stage
from apparel_embed.training.specialist import SpecialistConfig

# Between the seeds of combined models, so that those of runs with neighbouring seeds differ, too.
_SEEDS_APART = 1_000_003


def _make_starts(pipeline: PipelineRun) -> list[Stage]:
    """Trains combined models as far as specialists and student start from the first of them."""
    run, config = pipeline.run, pipeline.config
    verticals, stages = run.dataset.verticals, []
    for number in range(config.combined_seeds):
        run.access.log("combined model %d of %d", number + 1, config.combined_seeds)
        training = _training(
            pipeline, config.combined_steps * len(verticals), number * _SEEDS_APART
        )
        stages.append(specialist_stage(run, verticals, training, combined_start_name(number)))
    return stages


def _make_compared(pipeline: PipelineRun) -> list[Stage]:
    """Trains the first combined model on, for as many steps as all other trainings take."""
    run = pipeline.run
    others = [*student_teachers(run, grouped_specialists(pipeline)), pipeline[STUDENT]]
    steps = sum(
        stage.flags["optimization"]["steps"] for stage in others if stage.name != COMBINED_START
    )
    run.access.log("combined model to compare with: %d further steps", steps)
    training, start = _training(pipeline, steps), pipeline[COMBINED_START]
    return [specialist_stage(run, run.dataset.verticals, training, COMBINED, start)]


def _training(pipeline: PipelineRun, steps: int, further_seed: int = 0) -> SpecialistConfig:
    """Returns the training of a combined model by some steps."""
    verticals, rate = pipeline.run.dataset.verticals, pipeline.config.combined_learning_rate
    training = pipeline.config.specialist.for_steps(steps, verticals=len(verticals))
    optimization = dataclasses.replace(
        training.optimization,
        seed=training.optimization.seed + further_seed,
        learning_rate=training.optimization.learning_rate if rate is None else rate,
    )
    return dataclasses.replace(training, optimization=optimization)


START = StageKind(COMBINED_START, _make_starts)
COMPARED = StageKind(COMBINED, _make_compared)
