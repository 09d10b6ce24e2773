"""The inputs of a report: the results of an evaluation and the stages behind it."""

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
      label: its name in the report.
      model: name of the summary's model that was trained, or of which this is a part.
      stage: the stage, which contains `model/` and `tensorboard/`.
    """

    label: str
    model: str
    stage: Stage


@dataclasses.dataclass(frozen=True, eq=False)
class ReportInputs:
    """The inputs of all sections.

    Attributes:
      run: name of the run.
      split: the evaluated split.
      dataset: the prepared dataset.
      images: the images of the split.
      summary: the content of `summary.json`, without `grouped_specialists` if each group is one
        vertical, since it then equals `specialists`.
      embeddings: embeddings of each model in the summary, float32 [n, dim], in order of `images`.
      trainings: the trainings of the models.
      saved_models: directories of the exported SavedModels, by name of the model.
      measure_speed: whether to measure images per second, which differ in every report.
      stages: other stages shown in the report, by name, such as the student's targets.
      detection: the content of `detection.json`; None without a detector.
      detection_sheet: PNG of the photographs with the most misses and false alarms, or empty.
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
        """Name of the model with several spaces, the student's teachers, or None."""
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
    """Reads the results of an evaluation.

    Args:
      dataset: the evaluated prepared dataset.
      evaluation: the finished stage.
      summary_file: name of the summary in the stage.
      trainings: the trainings of the models.
      saved_models: directories of the exported SavedModels, by name of the model.
      measure_speed: whether the report should measure images per second.
      stages: other stages shown in the report, by name, such as the student's targets.

    Raises:
      UserError: if a file is missing, damaged or of images other than the split's.
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
