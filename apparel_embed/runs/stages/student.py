"""The stage of the student, which learns the targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apparel_embed.common.text import counted
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.growth import new_verticals
from apparel_embed.runs.stages.start import find_start, targets_space
from apparel_embed.runs.stages.targets import HELD_OUT_FILE, TARGETS_FILE
from apparel_embed.runs.stages.training import training_stage
from apparel_embed.runs.stages.views import read_views
from apparel_embed.store.names import COMBINED_START, STUDENT, TARGETS
from apparel_embed.store.record import Stage, Workload, fingerprints
from apparel_embed.training.config import StudentConfig
from apparel_embed.training.student import train_student

NEW_IMAGES_SEEN = 3.0
"""How often a grown run's student sees an image of a new vertical, relative to an old one.

The old student has already learnt the old verticals. On split val of the quickstart, for seeds 0
and 1, a factor of 3 helped the new vertical and did not hurt the old; for seed 0, 5 and 7 did.
"""


def student_stage(
    run: Run,
    targets: Stage,
    config: StudentConfig,
    start: Stage | None = None,
    name: str = STUDENT,
) -> Stage:
    """Trains the student on exported targets; the model is in `<stage>/model`.

    Args:
      run: the run.
      targets: the stage of the targets.
      config: how to train.
      start: the stage of this run with the model whose weights the student starts from. If None,
        it starts from the student of the earlier run that the configuration names, if any.
      name: name of the stage.

    Raises:
      UserError: the stage was made with other flags or inputs, or the earlier run has no model to
        start from.
    """
    unlabelled = targets.flags["unlabelled"]
    config = settled_student(run, config, unlabelled)
    found = find_start(start, config, (STUDENT,), run.directory)
    more_often = dict.fromkeys(new_verticals(run, targets, found), NEW_IMAGES_SEEN)
    rotate_start = found.space not in (None, targets_space(targets))

    def train(directory: Path, model: Path | None, views: Stage | None) -> dict[str, Any]:
        taught = read_embeddings(targets.directory / TARGETS_FILE)
        return train_student(
            run.dataset,
            taught,
            read_embeddings(targets.directory / HELD_OUT_FILE),
            config,
            directory,
            start=model,
            views=read_views(views, run.dataset, taught[0]),
            more_often=more_often,
            rotate_start=rotate_start,
        )

    steps, images = config.optimization.steps, run.learnt(unlabelled=unlabelled)
    return training_stage(
        run,
        name,
        config,
        found,
        train,
        workload=Workload(student_steps=steps),
        size=f"{counted(steps, 'step')} of {config.batch_size} images, out of {images:,}",
        steps_flag="--student_steps",
        flags={
            **({"more_often": more_often} if more_often else {}),
            **({"rotate_start": True} if rotate_start else {}),
        },
        inputs=fingerprints(targets),
    )


def settled_student(run: Run, config: StudentConfig, unlabelled: bool) -> StudentConfig:
    """Returns a student's training with its number of steps settled.

    Args:
      run: the run.
      config: how to train.
      unlabelled: whether the student also learns from images of split unlabelled.
    """
    return config.settled(run.learnt(unlabelled=unlabelled), run.learnt(unlabelled=False))


def make(pipeline: PipelineRun) -> list[Stage]:
    """Trains the student."""
    start = pipeline[COMBINED_START] if pipeline.config.start_from_combined else None
    return [student_stage(pipeline.run, pipeline[TARGETS], pipeline.config.student, start)]
