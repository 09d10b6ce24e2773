"""Code shared by the stages of all trainings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.settings import flag_names
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.start import Start, weights_input
from apparel_embed.runs.stages.views import views_stage
from apparel_embed.store.record import Stage, Workload, fingerprints
from apparel_embed.training.checkpoints import DIRECTORY as CHECKPOINTS
from apparel_embed.training.config import SpecialistConfig, StudentConfig, TrainingConfig

Train = Callable[[Path, "Path | None", "Stage | None"], dict[str, Any]]
"""Trains in a directory, from a model or None, on the features of a views stage or None."""


def training_stage(
    run: Run,
    name: str,
    config: SpecialistConfig | StudentConfig,
    start: Start,
    train: Train,
    *,
    workload: Workload,
    size: str,
    steps_flag: str,
    flags: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    reuse_from: Sequence[Path] = (),
) -> Stage:
    """Trains a model; writes it to `<stage>/model`.

    Args:
      run: the run.
      name: name of the stage.
      config: configuration of the training, settled.
      start: the model that it starts from.
      train: does the work; its result is the stage's.
      workload: the work, if the backbone is computed in every step.
      size: the amount of work, in words.
      steps_flag: as in `names_of_flags`.
      flags: flags in addition to those of the configuration.
      inputs: inputs in addition to the usual ones.
      reuse_from: as in `StageSpec`.
    """
    views = views_stage(run, config, start)

    def work(directory: Path) -> dict[str, Any]:
        return {**train(directory, start.model(name), views), **start.result}

    return run.make(
        name,
        work,
        flags={**(flags or {}), **start.flag, **training_flags(config)},
        inputs={
            **weights_input(config.init_weights),
            **start.inputs,
            **fingerprints(views),
            **(inputs or {}),
        },
        reuse_from=reuse_from,
        scratch=[CHECKPOINTS],
        on_all_workers=True,
        flag_names=names_of_flags(config, steps_flag, len((flags or {}).get("verticals", ()))),
        size=size,
        workload=Workload() if views else workload,
    )


def training_flags(config: TrainingConfig) -> dict[str, Any]:
    """Returns the flags that determine the result of a training."""
    flags = dataclasses.asdict(config)
    # Paths, logging, checkpoint intervals and caches do not change the result.
    del flags["init_weights"], flags["input"]["cache_gib"]
    flags.pop("init_from", None)
    for name in ("log_every", "checkpoint_every", "keep_checkpoints"):
        del flags["loop"][name]
    for name in ("profile_steps", "deterministic"):
        del flags["execution"][name]
    return flags


def names_of_flags(
    config: SpecialistConfig | StudentConfig, steps_flag: str, verticals: int = 1
) -> dict[str, str]:
    """Returns the names of a training's settings in messages, see `StageSpec.flag_names`.

    Args:
      config: configuration of the training.
      steps_flag: the flag of its number of steps; "" if that follows from other trainings.
      verticals: the number of verticals that the configuration is for.
    """
    who = "student" if isinstance(config, StudentConfig) else "specialist"
    names = flag_names(config)
    for name in names:
        outer, _, inner = name.rpartition(".")
        if outer == "input.augment":
            names[name] = f"--augment_{inner}"
    for name in ("learning_rate", "frozen_steps"):
        names[f"optimization.{name}"] = f"--{who}_{name}"
    names["optimization.steps"] = steps_flag or "optimization.steps"
    if verticals > 1 and steps_flag:
        for name in ("optimization.steps", "optimization.frozen_steps", "loop.validate_every"):
            names[name] = f"{name} ({names[name]} x {verticals} verticals)"
    return names


def hparams_of(config: SpecialistConfig | StudentConfig) -> dict[str, Any]:
    """Returns the settings in which trainings usually differ, for TensorBoard."""
    loss = config.loss
    named = {"loss": loss} if isinstance(loss, str) else {"loss": loss.name, "margin": loss.margin}
    return {
        **named,
        "learning_rate": config.optimization.learning_rate,
        "seed": config.optimization.seed,
        "backbone": config.model.backbone,
        "image_size": config.model.image_size,
        "embedding_dim": config.model.embedding_dim,
    }
