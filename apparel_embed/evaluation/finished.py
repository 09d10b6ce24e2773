"""The files of a finished evaluation: its summary, and each model's embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.evaluation.protocol import SCOPES, EvaluationSet
from apparel_embed.evaluation.roles import GROUPED, SPECIALISTS, ordered_models

_Rows = Sequence[Mapping[str, Any]]


def groups_are_single(rows: _Rows) -> bool:
    """Returns whether `grouped_specialists` repeats `specialists`: each group is one vertical.

    Args:
      rows: of `summary.json`.
    """
    deployed = {row["model"]: row["models_to_deploy"] for row in rows}
    # As many groups as verticals: each group is one vertical.
    return SPECIALISTS in deployed and deployed.get(GROUPED) == deployed[SPECIALISTS]


def without_repetition(rows: _Rows, comparisons: _Rows) -> tuple[_Rows, _Rows]:
    """Returns rows and comparisons without `grouped_specialists` if it repeats `specialists`.

    Args:
      rows: of `summary.json`.
      comparisons: of `summary.json`.
    """
    if not groups_are_single(rows):
        return rows, comparisons
    return (
        [row for row in rows if row["model"] != GROUPED],
        [one for one in comparisons if GROUPED not in (one["model"], one["minus"])],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FinishedEvaluation:
    """A finished evaluation, read with `open`.

    Attributes:
      directory: directory of the evaluation.
      split: the evaluated split.
      images: the images of the split.
      rows, comparisons, routing: of the summary; `routing` is empty without a vertical head.
    """

    directory: Path
    split: str
    images: EvaluationSet
    rows: tuple[Mapping[str, Any], ...]
    comparisons: tuple[Mapping[str, Any], ...]
    routing: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def open(
        cls, directory: Path, split: str, images: EvaluationSet, summary_file: str
    ) -> FinishedEvaluation:
        """Reads the summary of an evaluation.

        Args:
          directory: directory of the evaluation.
          split: the evaluated split.
          images: the images of the split.
          summary_file: name of the summary in the directory.

        Raises:
          UserError: if the summary is missing or invalid.
        """
        path = directory / summary_file
        try:
            summary = read_json(path)
            rows, comparisons = summary["rows"], summary["comparisons"]
            for row in rows:
                _ = row["model"], row["scope"], row["models_to_deploy"]
            for one in comparisons:
                _ = one["model"], one["minus"]
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; evaluate again") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the summary of an evaluation ({error!r})") from error
        if not rows:
            raise UserError(f"{path}: no rows, so no model was evaluated; evaluate again")
        routing = tuple(summary.get("routing", ()))
        return cls(directory, split, images, tuple(rows), tuple(comparisons), routing)

    @property
    def models(self) -> list[str]:
        """Names of the models, baselines first."""
        return ordered_models(row["model"] for row in self.rows)

    @property
    def groups_are_single(self) -> bool:
        """Whether `grouped_specialists` repeats `specialists`, see `groups_are_single`."""
        return groups_are_single(self.rows)

    def without_repetition(self) -> FinishedEvaluation:
        """Returns the evaluation without `grouped_specialists` if it repeats `specialists`."""
        rows, comparisons = without_repetition(self.rows, self.comparisons)
        return dataclasses.replace(self, rows=tuple(rows), comparisons=tuple(comparisons))

    def scopes(self, model: str) -> list[str]:
        """Returns the scopes in which a model was evaluated; "merged" requires one space."""
        found = {row["scope"] for row in self.rows if row["model"] == model}
        return [scope for scope in SCOPES if scope in found]

    def embeddings(self, model: str) -> np.ndarray:
        """Returns the embeddings of a model: float32 [n, dim], in the order of `images`.

        Raises:
          UserError: if the file is missing, damaged or of images other than the split's.
        """
        path = self.directory / "embeddings" / f"{model}.parquet"
        records, embeddings = read_embeddings(path)
        if not np.array_equal(records, self.images.records):
            raise UserError(
                f"{path}: expected the {len(self.images)} records of split {self.split}, got "
                f"{len(records)} others; evaluate again"
            )
        return embeddings
