"""The training cost of each model: its own training, and those of all its inputs."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf
from rich.table import Table

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import markdown_table
from apparel_embed.evaluation.table import human_count
from apparel_embed.models.computing import multiply_adds
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import build_embedding_model
from apparel_embed.store.record import Stage, find_stage

# A backward pass costs about two forward passes.
_PASSES = 3


@dataclasses.dataclass(frozen=True)
class TrainingCost:
    """The total cost of the trainings behind a model.

    Attributes:
      model: its name in the summary.
      trainings: number of trainings.
      steps: steps of all trainings.
      seconds: seconds of all trainings, on whatever machine they ran.
      multiply_adds: upper bound for all images seen: three passes through a model whose backbone
        is trained, otherwise one, as if no views had been computed beforehand.
    """

    model: str
    trainings: int
    steps: int
    seconds: float
    multiply_adds: int


def training_costs(run_dir: Path, models: Mapping[str, Sequence[Stage]]) -> list[TrainingCost]:
    """Returns the cost of the trainings behind each model.

    Args:
      run_dir: the run's directory, which contains the stages that are inputs of others.
      models: the stages of each model, or of all models it consists of, by its name in the summary.
    """
    counted: dict[ModelConfig, int] = {}
    return [_cost(name, run_dir, stages, counted) for name, stages in models.items()]


def _cost(
    model: str, run_dir: Path, stages: Sequence[Stage], counted: dict[ModelConfig, int]
) -> TrainingCost:
    """Returns the cost of one model; adds to the multiply-adds counted for each configuration."""
    trainings = _trainings(run_dir, stages)
    total = 0
    for stage in trainings:
        config = ModelConfig(**stage.flags["model"])
        if config not in counted:
            tf.keras.backend.clear_session()
            counted[config] = multiply_adds(build_embedding_model(config))
        passes = _PASSES if stage.flags["optimization"]["train_backbone"] else 1
        images = stage.result["trained_steps"] * _batch_size(stage)
        total += passes * images * counted[config]
    steps = sum(stage.result["trained_steps"] for stage in trainings)
    seconds = sum(stage.result["trained_seconds"] for stage in trainings)
    return TrainingCost(model, len(trainings), steps, round(seconds, 1), total)


def training_cost_table(costs: Sequence[TrainingCost]) -> Table:
    """Returns a table with one row per model."""
    return markdown_table(
        ("model", "trainings", "steps", "time", "multiply-adds"),
        (
            (
                cost.model,
                str(cost.trainings),
                f"{cost.steps:,}",
                str(datetime.timedelta(seconds=round(cost.seconds))),
                human_count(cost.multiply_adds),
            )
            for cost in costs
        ),
    )


def _trainings(run_dir: Path, stages: Sequence[Stage]) -> list[Stage]:
    """Returns the trainings among stages and all their inputs, each once."""
    found: dict[str, Stage] = {}
    waiting = list(stages)
    while waiting:
        stage = waiting.pop()
        if stage.name in found:
            continue
        found[stage.name] = stage
        for name, fingerprint in stage.inputs.items():
            try:
                made_from = find_stage(run_dir / name)
            except UserError:
                # The prepared dataset and initial weights are also inputs, but not stages.
                continue
            if made_from and made_from.fingerprint == fingerprint:
                waiting.append(made_from)
    return [stage for stage in found.values() if "trained_steps" in stage.result]


def _batch_size(stage: Stage) -> int:
    flags = stage.flags
    return flags.get("batch_size") or flags["items_per_batch"] * flags["images_per_item"]
