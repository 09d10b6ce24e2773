"""The stage of a model's vertical head, which predicts the vertical of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apparel_embed.runs.config import VerticalHeadConfig
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.store.names import STUDENT, VERTICAL_HEAD
from apparel_embed.store.record import Stage, fingerprints
from apparel_embed.training.vertical_head import train_vertical_head


def vertical_head_stage(run: Run, model: Stage) -> Stage:
    """Trains the vertical head of a model, or finds it finished; writes it to the stage.

    Args:
      run: the run.
      model: the model's stage, usually the student's.
    """

    def work(directory: Path) -> dict[str, Any]:
        head, report = train_vertical_head(run.dataset, model.directory / "model")
        head.save(directory)
        return {"verticals": list(head.verticals), **report}

    name = VERTICAL_HEAD if model.name == STUDENT else f"{VERTICAL_HEAD}-{model.name}"
    return run.make(name, work, flags={}, inputs=fingerprints(model))


def make(pipeline: PipelineRun) -> list[Stage]:
    """Trains the student's vertical head if requested, or finds that the run has one."""
    is_wanted = pipeline.settings(VerticalHeadConfig).vertical_head
    is_wanted = is_wanted or pipeline.run.find(VERTICAL_HEAD) is not None
    return [vertical_head_stage(pipeline.run, pipeline[STUDENT])] if is_wanted else []
