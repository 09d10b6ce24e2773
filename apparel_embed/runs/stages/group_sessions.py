"""Trials and sweeps as sessions of TensorBoard's HParams tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from apparel_embed.report.hparams import R_AT_1, Session
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig


def trial_sessions(record: Mapping[str, Any], training: SpecialistConfig) -> list[Session]:
    """Returns a session for each trial of a search.

    Args:
      record: the content of `groups.json`.
      training: how the specialist of one vertical is trained.

    Returns:
      Sessions with R@1 within on split val, the mean over the group's verticals that have a query
      with an answer and each of them.
    """
    sessions = []
    for trial in record["trials"]:
        group = trial["verticals"]
        recalls = {name: trial["r_at_1"][name] for name in group if name in trial["r_at_1"]}
        means = {R_AT_1: float(np.mean(list(recalls.values())))} if recalls else {}
        sessions.append(
            Session(
                trial["stage"],
                {
                    "kind": "grouping",
                    "verticals": "+".join(group),
                    "group_size": len(group),
                    "steps": trial["steps"],
                    **training_hparams(training),
                },
                {**means, **{f"{R_AT_1}/{name}": recall for name, recall in recalls.items()}},
            )
        )
    return sessions


def training_hparams(training: SpecialistConfig | StudentConfig) -> dict[str, Any]:
    """Returns of how a training was made what runs usually differ in.

    Args:
      training: its configuration.
    """
    loss = training.loss
    named = {"loss": loss} if isinstance(loss, str) else {"loss": loss.name, "margin": loss.margin}
    return {
        **named,
        "learning_rate": training.optimization.learning_rate,
        "seed": training.optimization.seed,
        "backbone": training.model.backbone,
        "image_size": training.model.image_size,
        "embedding_dim": training.model.embedding_dim,
    }


def sweep_sessions(
    record: Mapping[str, Any],
    repeats: Mapping[int, Sequence[tuple[int, str]]],
    trainings: Mapping[str, SpecialistConfig | StudentConfig],
) -> list[Session]:
    """Returns a session for each repeat of each model and size of a sweep.

    Args:
      record: the content of `sweep.json`.
      repeats: for each size, seed and groups of its repeats, in their order.
      trainings: how each model is trained, but for the seed.

    Returns:
      Sessions with R@1 within, the mean over all verticals.
    """
    return [
        Session(
            f"{row['model']}-size{row['size']}-{number:02d}",
            {
                "kind": "sweep",
                "model": row["model"],
                "verticals": groups,
                "group_size": row["group_size"],
                **training_hparams(trainings[row["model"]]),
                "seed": seed,
            },
            {R_AT_1: value},
        )
        for row in record["rows"]
        for number, (value, (seed, groups)) in enumerate(zip(row["repeats"], repeats[row["size"]]))
    ]
