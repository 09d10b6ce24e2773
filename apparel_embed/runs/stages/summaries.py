"""The stage of the TensorBoard summaries of an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apparel_embed.report.inputs import load_inputs
from apparel_embed.report.tensorboard import write_summaries
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.evaluation import SUMMARY_FILE
from apparel_embed.store.names import EVALUATION, SUMMARIES
from apparel_embed.store.record import Stage, fingerprints


def summaries_stage(run: Run, evaluation: Stage) -> Stage:
    """Writes `<stage>/tensorboard`, for `tensorboard --logdir=<run>` to find.

    It only shows the evaluation's results, so it is overwritten when they change.

    Args:
      run: the run, whose dataset was evaluated.
      evaluation: the stage to show.
    """

    def work(directory: Path) -> dict[str, Any]:
        inputs = load_inputs(run.dataset, evaluation, SUMMARY_FILE, [], {}, measure_speed=False)
        return write_summaries(inputs, directory / "tensorboard")

    return run.make(SUMMARIES, work, flags={}, inputs=fingerprints(evaluation), overwrite=True)


def make(pipeline: PipelineRun) -> list[Stage]:
    """Writes TensorBoard summaries of the evaluation, if any."""
    evaluation = pipeline.get(EVALUATION)
    return [summaries_stage(pipeline.run, evaluation)] if evaluation else []
