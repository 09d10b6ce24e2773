"""What it took to train each model: its own training, and all that it was made from."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
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

# A backward pass takes about two forward ones.
_PASSES = 3


@dataclasses.dataclass(frozen=True)
class RoadCost:
    """What the trainings behind a model took together.

    Attributes:
      model: its name in the summary.
      trainings: their number.
      steps: of all of them.
      seconds: of all of them, on whatever machine.
      multiply_adds: of all images seen, at the most: three passes through a model whose backbone
        is trained, one through another, as if no views had been put through it beforehand.
    """

    model: str
    trainings: int
    steps: int
    seconds: float
    multiply_adds: int


def road_cost(model: str, run_dir: Path, stages: Sequence[Stage]) -> RoadCost:
    """Returns what the trainings behind a model took.

    Args:
      model: its name in the summary.
      run_dir: the run's directory, in which the stages are looked up that others were made from.
      stages: of the model, or of all models that it is made of.
    """
    trainings = _trainings(run_dir, stages)
    counted: dict[ModelConfig, int] = {}
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
    return RoadCost(model, len(trainings), steps, round(seconds, 1), total)


def roads_table(costs: Sequence[RoadCost]) -> Table:
    """Returns a table with a line for each model."""
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
    """Returns the trainings among stages and what they were made from, each once."""
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
                # The prepared dataset and initial weights are inputs, too, and no stages.
                continue
            if made_from and made_from.fingerprint == fingerprint:
                waiting.append(made_from)
    return [stage for stage in found.values() if "trained_steps" in stage.result]


def _batch_size(stage: Stage) -> int:
    flags = stage.flags
    return flags.get("batch_size") or flags["items_per_batch"] * flags["images_per_item"]
