"""The stage of the detector, which finds the garments in photographs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.start import weights_input
from apparel_embed.runs.stages.training import training_flags
from apparel_embed.store.names import DETECTOR, STUDENT
from apparel_embed.store.record import Stage, Workload, fingerprints
from apparel_embed.training.checkpoints import DIRECTORY as CHECKPOINTS
from apparel_embed.training.config import DetectorTraining
from apparel_embed.training.detector import train_detector


def detector_stage(
    run: Run,
    photographs: PreparedDataset,
    config: DetectorTraining,
    start: Stage | None = None,
) -> Stage:
    """Trains a detector on photographs, or finds it finished; the model is in `<stage>/model`.

    Args:
      run: the run; its dataset of single garments is not used.
      photographs: the dataset of whole photographs.
      config: how to train.
      start: the stage of the embedding model whose backbone weights it starts from, if their
        backbones are the same; None for initial weights.

    Raises:
      UserError: split train has no photograph with a box, or the stage was made with other flags
        or inputs.
    """
    records = len(photographs.select(split="train"))
    if not records:
        raise UserError(
            f"{photographs.directory}: split train has no photograph with a box; the detector is "
            "trained on boxes"
        )
    optimization = config.optimization.settled(records)
    config = dataclasses.replace(config, optimization=optimization)
    steps = optimization.steps
    if start and start.flags["model"]["backbone"] != config.model.backbone:
        start = None

    flags = training_flags(config)
    # Results of the training: the verticals that have boxes, and the threshold.
    del flags["model"]["verticals"], flags["model"]["score_threshold"]

    def work(directory: Path) -> dict[str, Any]:
        model = start.directory / "model" if start else None
        return train_detector(photographs, config, directory, start=model)

    return Run(run.directory, photographs, run.access).make(
        DETECTOR,
        work,
        flags=flags,
        inputs={**weights_input(config.init_weights), **fingerprints(start)},
        scratch=[CHECKPOINTS],
        on_all_workers=True,
        flag_names={
            "optimization.steps": "--detector_steps",
            "optimization.learning_rate": "--detector_learning_rate",
            "model.image_size": "--detector_image_size",
            "model.backbone": "--detector_backbone",
            "batch_size": "--detector_batch_size",
        },
        size=f"{counted(steps, 'step')} of {config.batch_size} photographs, out of {records:,}",
        workload=Workload(detector_steps=steps),
    )


def make(pipeline: PipelineRun) -> list[Stage]:
    """Trains the detector if the pipeline has one."""
    photographs, config = pipeline.photographs, pipeline.config.detector
    if photographs is None or config is None:
        return []
    return [detector_stage(pipeline.run, photographs, config, pipeline[STUDENT])]
