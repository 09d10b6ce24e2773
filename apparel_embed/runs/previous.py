"""What trainings start from: initial weights, or models of an earlier run (noisy images first)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_files
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.store.record import Stage, find_stage, open_stage

INIT_FROM = "init_from"
"""The input of a stage that started from a model of an earlier run."""
STARTED_FROM = "started_from"
"""In the result of such a stage, the directory of the stage with that model."""


def previous_stage(
    init_from: Path,
    names: Sequence[str],
    model: ModelConfig,
    run_dir: Path,
    most_dimensions: float | None = None,
) -> Stage:
    """Finds the stage of an earlier run whose model a training starts from; nothing is changed.

    Pictures may have another size than in that run, and so may what batch norms keep: no weight
    depends on either.

    Args:
      init_from: directory of the earlier run.
      names: of stages, of which the first that is finished is taken.
      model: what is to be trained.
      run_dir: directory of the run that trains.
      most_dimensions: of the earlier model's embedding, where it may be shorter or longer than that
        of `model`; by default it is to be equally long.

    Raises:
      UserError: it is no finished run, or the same, or its model is built otherwise.
    """
    if not init_from.is_dir():
        raise UserError(f"--init_from={init_from}: no such directory; name that of a finished run")
    if init_from.resolve() == run_dir.resolve():
        raise UserError(f"--init_from={init_from}: is --run_dir itself; name an earlier run")
    found = (find_stage(init_from / name) for name in names)
    stage = next((one for one in found if one), None)
    if stage is None:
        try:
            stage = open_stage(init_from / names[-1])
        except UserError as error:
            raise UserError(f"--init_from={init_from}: not a finished run: {error}") from error
    _check_alike(init_from, stage, model, most_dimensions)
    return stage


def previous_input(start: Stage | None) -> dict[str, str]:
    """Returns the fingerprint of an earlier run's stage as an input of a stage, if there is one."""
    return {INIT_FROM: start.fingerprint} if start else {}


def model_of(start: Stage | None, what: str) -> Path | None:
    """Returns the directory of an earlier run's model, and says that a training starts from it.

    Args:
      start: the stage with the model, or None.
      what: name of what is trained.
    """
    if start is None:
        return None
    logging.info("%s: starts from %s (%s)", what, start.directory, start.fingerprint[:12])
    return start.directory / "model"


def previous_result(start: Stage | None) -> dict[str, str]:
    """Returns what a stage reports of where it started."""
    return {STARTED_FROM: str(start.directory)} if start else {}


def weights_input(init_weights: str) -> dict[str, str]:
    """Returns the fingerprint of initial weights as an input of a stage: by content, not by path.

    Args:
      init_weights: as in `load_initial_weights`.
    """
    path = Path(init_weights)
    return {"init_weights": fingerprint_files([path]) if path.is_file() else init_weights}


def _check_alike(
    init_from: Path, stage: Stage, model: ModelConfig, most_dimensions: float | None
) -> None:
    """Raises a UserError if the model of a stage has weights of other shapes."""
    built = ModelConfig(**stage.flags["model"])
    for name in ("backbone", "pooling", "embedding_dim"):
        theirs, ours = getattr(built, name), getattr(model, name)
        if name == "embedding_dim" and most_dimensions is not None:
            if theirs > most_dimensions:
                raise UserError(
                    f"--init_from={init_from}: its {stage.name} has embedding_dim {theirs}, here "
                    f"it is {most_dimensions}; it can grow, but not shrink"
                )
        elif theirs != ours:
            raise UserError(
                f"--init_from={init_from}: its {stage.name} has {name} {theirs}, but --{name} is "
                f"{ours}; they must be equal"
            )
