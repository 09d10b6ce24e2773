"""What a report is made from: the results of an evaluation and the stages behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.files import read_json
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.absent import ABSENT_FILE
from apparel_embed.evaluation.finished import FinishedEvaluation
from apparel_embed.evaluation.protocol import EvaluationSet
from apparel_embed.evaluation.roles import GROUPED, SPECIALISTS, ordered_models
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.street import DETECTION_FILE, DETECTION_SHEET
from apparel_embed.store.record import Stage


@dataclasses.dataclass(frozen=True)
class Training:
    """A finished training.

    Attributes:
      label: what it is called in the report.
      model: name of the model in the summary that it is, or is a part of.
      stage: with `model/` and `tensorboard/`.
    """

    label: str
    model: str
    stage: Stage


@dataclasses.dataclass(frozen=True, eq=False)
class ReportInputs:
    """Everything the sections are made from.

    Attributes:
      run: name of the run.
      split: that was evaluated.
      dataset: the prepared dataset.
      images: of the split.
      summary: the content of `summary.json`, without `grouped_specialists` where its groups
        are single verticals, as it then is `specialists` once more.
      embeddings: of each model of the summary, float32 [n, dim] in the order of `images`.
      trainings: behind the models.
      saved_models: directory of the SavedModel by name of the model, as far as exported.
      measure_speed: whether to measure images per second, which no two reports share.
      stages: further ones that the report shows, by name, such as that of the student's targets.
      detection: the content of `detection.json`; None without a detector.
      detection_sheet: the photographs with most misses and false alarms, as PNG; empty likewise.
      absent: the content of `absent.json`; None without a student.
    """

    run: str
    split: str
    dataset: PreparedDataset
    images: EvaluationSet
    summary: Mapping[str, Any]
    embeddings: Mapping[str, np.ndarray]
    trainings: Sequence[Training]
    saved_models: Mapping[str, Path]
    measure_speed: bool
    stages: Mapping[str, Stage] = dataclasses.field(default_factory=dict)
    detection: Mapping[str, Any] | None = None
    detection_sheet: bytes = b""
    absent: Mapping[str, Any] | None = None

    @property
    def models(self) -> list[str]:
        """Names of the models, baselines first."""
        return ordered_models(row["model"] for row in self.summary["rows"])

    @property
    def experts(self) -> str | None:
        """The model of several spaces: the student's teachers, or None."""
        return next((name for name in (GROUPED, SPECIALISTS) if name in self.models), None)


def load_inputs(
    dataset: PreparedDataset,
    evaluation: Stage,
    summary_file: str,
    trainings: Sequence[Training],
    saved_models: Mapping[str, Path],
    measure_speed: bool,
    stages: Mapping[str, Stage] | None = None,
) -> ReportInputs:
    """Reads what an evaluation has left.

    Args:
      dataset: the prepared dataset that was evaluated.
      evaluation: the finished stage.
      summary_file: name of the summary in it.
      trainings: behind the models.
      saved_models: directory of the SavedModel by name of the model.
      measure_speed: whether the report should measure images per second.
      stages: further ones that the report shows, by name, such as that of the student's targets.

    Raises:
      UserError: if a file is missing, broken or of other images than the split.
    """
    split = evaluation.flags["split"]
    images = evaluation_set(dataset, split)
    finished = FinishedEvaluation.open(evaluation.directory, split, images, summary_file)
    finished = finished.without_repetition()
    files = (DETECTION_FILE, DETECTION_SHEET, ABSENT_FILE)
    detection, sheet, absent = (evaluation.directory / name for name in files)
    return ReportInputs(
        run=evaluation.directory.resolve().parent.name,
        split=split,
        dataset=dataset,
        images=images,
        summary={
            "rows": list(finished.rows),
            "comparisons": list(finished.comparisons),
            "routing": list(finished.routing),
        },
        embeddings={name: finished.embeddings(name) for name in finished.models},
        trainings=tuple(trainings),
        saved_models=dict(saved_models),
        measure_speed=measure_speed,
        stages=stages or {},
        detection=read_json(detection) if detection.is_file() else None,
        detection_sheet=sheet.read_bytes() if sheet.is_file() else b"",
        absent=read_json(absent) if absent.is_file() else None,
    )
