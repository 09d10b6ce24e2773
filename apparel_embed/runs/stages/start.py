"""Where trainings start: a model of the run, one of an earlier run, or initial weights."""

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
"""In the result of such a stage, the directory of the stage with that model."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a training starts; from initial weights if there is no stage.

    Attributes:
      own: the stage of the same run with the model whose weights it starts from, or None.
      previous: that of an earlier run, or None.
    """

    own: Stage | None = None
    previous: Stage | None = None

    @property
    def flag(self) -> dict[str, str]:
        """The flag that records it."""
        return {"start": self.own.name if self.own else INIT_FROM if self.previous else "none"}

    @property
    def space(self) -> str | None:
        """The space of its embeddings, comparable with `targets_space`; None without a model."""
        return self.own.name if self.own else self.previous.fingerprint if self.previous else None

    @property
    def inputs(self) -> dict[str, str]:
        """The stage as an input."""
        return {INIT_FROM: self.previous.fingerprint} if self.previous else fingerprints(self.own)

    @property
    def result(self) -> dict[str, str]:
        """What the training reports of it."""
        return {STARTED_FROM: str(self.previous.directory)} if self.previous else {}

    def model(self, what: str) -> Path | None:
        """Returns the directory of the model; logs it if it is an earlier run's.

        Args:
          what: name of what is trained.
        """
        stage = self.own or self.previous
        if self.previous:
            directory, fingerprint = self.previous.directory, self.previous.fingerprint
            logging.info("%s: starts from %s (%s)", what, directory, fingerprint[:12])
        return stage.directory / "model" if stage else None


def targets_space(targets: Stage) -> str:
    """Returns the space of targets: a stage of their run by its name, else an earlier student."""
    return targets.inputs.get(OLD_STUDENT, targets.flags["align_to"])


def find_start(
    own: Stage | None,
    config: SpecialistConfig | StudentConfig,
    names: Sequence[str],
    run_dir: Path,
) -> Start:
    """Returns where a training starts: an earlier run matters only without a model of this one.

    Images may have another size than in that run, and so may what batch norms keep: no weight
    depends on either.

    Args:
      own: the stage of this run with the model to start from, or None.
      config: of the training, which may name an earlier run.
      names: of that run's stages, of which the first that is finished is taken.
      run_dir: directory of this run.

    Raises:
      UserError: the earlier run is no finished run, or the same, or its model is built otherwise.
    """
    init_from = config.init_from
    if own or not init_from:
        return Start(own)
    stage = earlier_stage("init_from", init_from, names, run_dir)
    difference = built_otherwise(stage, config.model)
    if difference:
        raise UserError(f"--init_from={init_from}: {difference}; they must be equal")
    return Start(previous=stage)


def built_otherwise(stage: Stage, model: ModelConfig) -> str:
    """Returns why a model cannot start from the weights of a stage's; "" if it can."""
    built = ModelConfig(**stage.flags["model"])
    for name in ("backbone", "pooling", "embedding_dim"):
        theirs, ours = getattr(built, name), getattr(model, name)
        if theirs != ours:
            return f"its {stage.name} has {name} {theirs}, but --{name} is {ours}"
    return ""


def earlier_stage(flag: str, earlier: Path, names: Sequence[str], run_dir: Path) -> Stage:
    """Returns the first stage of an earlier run that is finished.

    Args:
      flag: that names the earlier run, for messages.
      earlier: its directory.
      names: of its stages.
      run_dir: directory of this run.

    Raises:
      UserError: the earlier run is no finished run, or the same.
    """
    if not earlier.is_dir():
        raise UserError(f"--{flag}={earlier}: no such directory; name that of a finished run")
    if earlier.resolve() == run_dir.resolve():
        raise UserError(f"--{flag}={earlier}: is --run_dir itself; name an earlier run")
    found = (find_stage(earlier / name) for name in names)
    stage = next((one for one in found if one), None)
    if stage is None:
        try:
            stage = open_stage(earlier / names[-1])
        except UserError as error:
            raise UserError(f"--{flag}={earlier}: not a finished run: {error}") from error
    return stage


def old_student(flag: str, earlier: Path, run_dir: Path, dim: int) -> Stage:
    """Returns the student of an earlier run whose space another student is to have.

    Args:
      flag: that names the earlier run, for messages.
      earlier: its directory.
      run_dir: directory of this run.
      dim: length of the embeddings of this run.

    Raises:
      UserError: as `earlier_stage`, or its embeddings have another length.
    """
    student = earlier_stage(flag, earlier, (STUDENT,), run_dir)
    theirs = student.flags["model"]["embedding_dim"]
    if theirs != dim:
        raise UserError(
            f"--{flag}={earlier}: its embeddings have {theirs} numbers, but --embedding_dim is "
            f"{dim}; they must be equal"
        )
    return student


def weights_input(init_weights: str) -> dict[str, str]:
    """Returns the fingerprint of initial weights as an input of a stage: by content, not by path.

    Args:
      init_weights: as in `load_initial_weights`.
    """
    path = Path(init_weights)
    return {"init_weights": fingerprint_files([path]) if path.is_file() else init_weights}
