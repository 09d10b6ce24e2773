"""What TensorBoard shows of an evaluation: a stage of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.report.inputs import load_inputs
from apparel_embed.report.tensorboard import write_summaries
from apparel_embed.runs.stages.training import SUMMARY_FILE
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import REAL, StageAccess

SUMMARIES = "summaries"


def summaries_stage(
    run_dir: Path, dataset: PreparedDataset, evaluation: Stage, access: StageAccess = REAL
) -> Stage:
    """Writes `<stage>/tensorboard`, for `tensorboard --logdir=<run>` to find.

    It only shows what the evaluation has found, so it is made anew when that changes.

    Args:
      run_dir: the run's directory.
      dataset: the prepared dataset that was evaluated.
      evaluation: the stage to show.
      access: how stages are made.
    """

    def work(directory: Path) -> dict[str, Any]:
        inputs = load_inputs(dataset, evaluation, SUMMARY_FILE, [], {}, measure_speed=False)
        return write_summaries(inputs, directory / "tensorboard")

    return access.make(
        run_dir / SUMMARIES,
        flags={},
        inputs={"prepared": dataset.fingerprint, evaluation.name: evaluation.fingerprint},
        work=report_corrupt_records(dataset, work),
        renewed=True,
    )
