"""What trainings start from: a model of the run, a model of an earlier run, or initial weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_files
from apparel_embed.models.config import ModelConfig
from apparel_embed.store.names import OLD_STUDENT, STUDENT
from apparel_embed.store.record import Stage, find_stage, fingerprints, open_stage
from apparel_embed.training.config import SpecialistConfig, StudentConfig

INIT_FROM = "init_from"
"""The input of a stage that started from a model of an earlier run."""
STARTED_FROM = "started_from"
"""The entry of such a stage's result with the directory of that model's stage."""


@dataclasses.dataclass(frozen=True)
class Start:
    """The model that a training starts from; initial weights if both stages are None.

    Attributes:
      own: the stage of the same run with the model whose weights it starts from, or None.
      previous: the stage of an earlier run with that model, or None.
    """

    own: Stage | None = None
    previous: Stage | None = None

    @property
    def flag(self) -> dict[str, str]:
        """The flag that records the start."""
        return {"start": self.own.name if self.own else INIT_FROM if self.previous else "none"}

    @property
    def space(self) -> str | None:
        """The model's embedding space, comparable with `targets_space`; None without a model."""
        return self.own.name if self.own else self.previous.fingerprint if self.previous else None

    @property
    def inputs(self) -> dict[str, str]:
        """The stage as an input."""
        return {INIT_FROM: self.previous.fingerprint} if self.previous else fingerprints(self.own)

    @property
    def result(self) -> dict[str, str]:
        """The entries that the training adds to its result."""
        return {STARTED_FROM: str(self.previous.directory)} if self.previous else {}

    def model(self, what: str) -> Path | None:
        """Returns the directory of the model; logs it if it belongs to an earlier run.

        Args:
          what: name of the training, for the log.
        """
        stage = self.own or self.previous
        if self.previous:
            directory, fingerprint = self.previous.directory, self.previous.fingerprint
            logging.info("%s: starts from %s (%s)", what, directory, fingerprint[:12])
        return stage.directory / "model" if stage else None


def targets_space(targets: Stage) -> str:
    """Returns the space of targets: the fingerprint of an earlier student, else `align_to`."""
    return targets.inputs.get(OLD_STUDENT, targets.flags["align_to"])


def find_start(
    own: Stage | None,
    config: SpecialistConfig | StudentConfig,
    names: Sequence[str],
    run_dir: Path,
) -> Start:
    """Returns what a training starts from. An earlier run is only used if `own` is None.

    Image size and batch norm momentum may differ from that run's, as no weight depends on them.

    Args:
      own: the stage of this run with the model to start from, or None.
      config: configuration of the training, which may name an earlier run.
      names: names of that run's stages; the first finished one is used.
      run_dir: directory of this run.

    Raises:
      UserError: the earlier run is not finished, is this run, or its model has another
        architecture.
    """
    init_from = config.init_from
    if own or not init_from:
        return Start(own)
    stage = earlier_stage("init_from", init_from, names, run_dir)
    difference = architecture_difference(stage, config.model)
    if difference:
        raise UserError(f"--init_from={init_from}: {difference}; expected equal values")
    return Start(previous=stage)


def architecture_difference(stage: Stage, model: ModelConfig) -> str:
    """Returns why a model cannot start from the weights of a stage's model; "" if it can."""
    built = ModelConfig(**stage.flags["model"])
    for name in ("backbone", "pooling", "embedding_dim"):
        theirs, ours = getattr(built, name), getattr(model, name)
        if theirs != ours:
            return f"its {stage.name} has {name} {theirs}, but --{name} is {ours}"
    return ""


def earlier_stage(flag: str, earlier: Path, names: Sequence[str], run_dir: Path) -> Stage:
    """Returns the first finished one of an earlier run's stages.

    Args:
      flag: the flag that names the earlier run, for messages.
      earlier: directory of the earlier run.
      names: names of the stages.
      run_dir: directory of this run.

    Raises:
      UserError: the earlier run is not finished, or is this run.
    """
    if not earlier.is_dir():
        raise UserError(f"--{flag}={earlier}: no such directory; expected a finished run")
    if earlier.resolve() == run_dir.resolve():
        raise UserError(f"--{flag}={earlier}: expected an earlier run, got --run_dir itself")
    found = (find_stage(earlier / name) for name in names)
    stage = next((one for one in found if one), None)
    if stage is None:
        try:
            stage = open_stage(earlier / names[-1])
        except UserError as error:
            raise UserError(f"--{flag}={earlier}: not a finished run: {error}") from error
    return stage


def old_student(flag: str, earlier: Path, run_dir: Path, dim: int) -> Stage:
    """Returns the student of an earlier run, to which another student is to be aligned.

    Args:
      flag: the flag that names the earlier run, for messages.
      earlier: directory of the earlier run.
      run_dir: directory of this run.
      dim: length of this run's embeddings.

    Raises:
      UserError: see `earlier_stage`; or its embeddings have another length.
    """
    student = earlier_stage(flag, earlier, (STUDENT,), run_dir)
    theirs = student.flags["model"]["embedding_dim"]
    if theirs != dim:
        raise UserError(
            f"--{flag}={earlier}: its embeddings have {theirs} numbers, but --embedding_dim is "
            f"{dim}; expected equal values"
        )
    return student


def weights_input(init_weights: str) -> dict[str, str]:
    """Returns initial weights as an input of a stage; a file is identified by its content.

    Args:
      init_weights: as in `load_initial_weights`.
    """
    path = Path(init_weights)
    return {"init_weights": fingerprint_files([path]) if path.is_file() else init_weights}
