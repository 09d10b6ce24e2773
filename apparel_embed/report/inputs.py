"""What a report is made from: the results of an evaluation and the stages behind it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.evaluation.protocol import EvaluationSet
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import ordered_models
from apparel_embed.files import read_json
from apparel_embed.runs import Stage

COMBINED = "combined"
SPECIALISTS = "specialists"
GROUPED = "grouped_specialists"
UNIFIED = "unified"


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
      pictures: of the split.
      summary: the content of `summary.json`, without `grouped_specialists` where its groups
        are single verticals, as it then is `specialists` once more.
      embeddings: of each model of the summary, float32 [n, dim] in the order of `pictures`.
      trainings: behind the models.
      saved_models: directory of the SavedModel by name of the model, as far as exported.
      measure_speed: whether to measure images per second, which no two reports share.
      sweep: directory with the curve of group sizes, or None.
    """

    run: str
    split: str
    dataset: PreparedDataset
    pictures: EvaluationSet
    summary: Mapping[str, Any]
    embeddings: Mapping[str, np.ndarray]
    trainings: Sequence[Training]
    saved_models: Mapping[str, Path]
    measure_speed: bool
    sweep: Path | None = None

    @property
    def models(self) -> list[str]:
        """Names of the models, baselines first."""
        return ordered_models(row["model"] for row in self.summary["rows"])

    @property
    def experts(self) -> str | None:
        """The model of several spaces: specialists, else those of groups, or None."""
        return next((name for name in (SPECIALISTS, GROUPED) if name in self.models), None)


def load_inputs(
    dataset: PreparedDataset,
    evaluation: Stage,
    summary_file: str,
    trainings: Sequence[Training],
    saved_models: Mapping[str, Path],
    measure_speed: bool,
    sweep: Path | None = None,
) -> ReportInputs:
    """Reads what an evaluation has left.

    Args:
      dataset: the prepared dataset that was evaluated.
      evaluation: the finished stage.
      summary_file: name of the summary in it.
      trainings: behind the models.
      saved_models: directory of the SavedModel by name of the model.
      measure_speed: whether the report should measure images per second.
      sweep: directory with the curve of group sizes, or None.

    Raises:
      UserError: if a file is missing, broken or of other pictures than the split.
    """
    split = evaluation.flags["split"]
    pictures = evaluation_set(dataset, split)
    summary = _read_summary(evaluation.directory / summary_file)
    embeddings = {}
    for name in ordered_models(row["model"] for row in summary["rows"]):
        path = evaluation.directory / "embeddings" / f"{name}.parquet"
        records, embeddings[name] = read_embeddings(path)
        if not np.array_equal(records, pictures.records):
            raise UserError(
                f"{path}: holds {len(records)} records which are not the {len(pictures)} of "
                f"split {split}; evaluate again"
            )
    return ReportInputs(
        run=evaluation.directory.resolve().parent.name,
        split=split,
        dataset=dataset,
        pictures=pictures,
        summary=summary,
        embeddings=embeddings,
        trainings=tuple(trainings),
        saved_models=dict(saved_models),
        measure_speed=measure_speed,
        sweep=sweep,
    )


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = read_json(path)
        rows, comparisons = summary["rows"], summary["comparisons"]
        deployed = {row["model"]: row["models_to_deploy"] for row in rows}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; evaluate again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the summary of an evaluation ({error!r})") from error
    if not rows:
        raise UserError(f"{path}: has no rows: no model was evaluated")
    # As many groups as verticals: each is one vertical.
    if SPECIALISTS in deployed and deployed.get(GROUPED) == deployed[SPECIALISTS]:
        rows = [row for row in rows if row["model"] != GROUPED]
    return {"rows": rows, "comparisons": comparisons}
