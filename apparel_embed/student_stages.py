"""The stages that lead from specialists to the student: targets, their alignment, training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.errors import UserError
from apparel_embed.evaluation.embeddings import read_embeddings, write_embeddings
from apparel_embed.inference.damage import telling_damage
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.previous_run import (
    INIT_FROM,
    model_of,
    previous_input,
    previous_result,
    previous_stage,
)
from apparel_embed.runs import REAL, StageAccess
from apparel_embed.stage_record import Stage
from apparel_embed.stages import COMBINED, STUDENT, made_of, weights_input
from apparel_embed.training.checkpoints import DIRECTORY as CHECKPOINTS
from apparel_embed.training.references import FrozenBackbone
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.targets import TargetsConfig, Teacher, compute_targets

TARGETS = "targets"
TARGETS_FILE = "targets.parquet"
UNALIGNED_TARGETS = "targets-unaligned"
UNALIGNED_STUDENT = "student-unaligned"
REFERENCES = {
    "combined": "the combined model",
    "none": "leaves them as they are",
    "frozen": "principal components of the features of the backbone with its initial weights",
    "first": "the specialist of the vertical with most training pictures",
    "student": f"an earlier student, trained on targets that are not aligned ({UNALIGNED_STUDENT})",
}
"""What specialists' spaces can be rotated onto, by name, with what it is."""


def find_reference(
    align_to: str,
    run_dir: Path,
    dataset: PreparedDataset,
    specialists: Sequence[Stage],
    *,
    init_weights: str,
    seed: int,
    access: StageAccess = REAL,
) -> Stage | FrozenBackbone | None:
    """Returns the reference of a name, as `targets_stage` takes it.

    Args:
      align_to: one of `REFERENCES`.
      run_dir: the run's directory, where the stages of models are.
      dataset: a prepared dataset.
      specialists: finished stages of the student's teachers.
      init_weights: initial weights of the frozen backbone, as in `load_initial_weights`; its
        architecture is that of the first specialist.
      seed: of the frozen backbone's weights, where these are random.
      access: how stages are found.

    Raises:
      UserError: if the name is unknown, or its stage is not there.
    """
    if align_to not in REFERENCES:
        raise UserError(f"--align_to={align_to}: allowed are {', '.join(REFERENCES)}")
    if align_to == "none":
        return None
    if align_to == "frozen":
        return FrozenBackbone(ModelConfig(**specialists[0].flags["model"]), init_weights, seed)
    if align_to == "first":
        return _with_most_pictures(dataset, specialists)
    name = {"combined": COMBINED, "student": UNALIGNED_STUDENT}[align_to]
    try:
        return access.open(run_dir / name)
    except UserError as error:
        raise UserError(f"--align_to={align_to} needs another stage: {error}") from error


def targets_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    specialists: Sequence[Stage],
    reference: Stage | FrozenBackbone | None,
    config: TargetsConfig = TargetsConfig(),
    name: str = TARGETS,
    access: StageAccess = REAL,
) -> Stage:
    """Exports the student's targets to `<stage>/targets.parquet`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      specialists: finished stages whose verticals do not overlap.
      reference: onto whose space specialists' are rotated: the stage of a model, the frozen
        backbone, or None.
      config: how targets are made.
      name: of the stage.
      access: how stages are made.
    """
    teachers = [Teacher(tuple(s.flags["verticals"]), s.directory / "model") for s in specialists]
    flags, inputs = _made_of_reference(reference)

    def work(directory: Path) -> dict[str, Any]:
        records, targets, report = compute_targets(
            dataset,
            teachers,
            reference=reference.directory / "model" if isinstance(reference, Stage) else reference,
            config=config,
        )
        write_embeddings(directory / TARGETS_FILE, records, targets)
        return {
            "pictures": len(records),
            "unlabelled": sum(entry["unlabelled"] for entry in report),
            "dim": targets.shape[1],
            "specialists": report,
        }

    return access.make(
        run_dir / name,
        flags={**flags, **_targets_flags(config, dataset, reference is not None)},
        inputs={
            "prepared": dataset.fingerprint,
            **{stage.name: stage.fingerprint for stage in specialists},
            **inputs,
        },
        work=telling_damage(dataset, work),
    )


def student_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    targets: Stage,
    config: StudentConfig,
    start: Stage | None = None,
    name: str = STUDENT,
    access: StageAccess = REAL,
) -> Stage:
    """Trains the student on exported targets; the model is in `<stage>/model`.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      targets: the stage that exported them.
      config: how to train.
      start: the stage of this run with the model whose weights the student starts from, or None:
        then it starts from the student of the earlier run that the configuration names, if any.
      name: of the stage.
      access: how stages are made.

    Raises:
      UserError: if the stage was made with other flags or inputs, or there is nothing to start from
        in the earlier run.
    """
    flags, inputs = made_of(config, dataset)
    previous = None
    if config.init_from and not start:
        # Of groups that are kept apart there may have been fewer.
        most = config.model.embedding_dim
        previous = previous_stage(config.init_from, (STUDENT,), config.model, run_dir, most)

    def work(directory: Path) -> dict[str, Any]:
        records, embeddings = read_embeddings(targets.directory / TARGETS_FILE)
        model = start.directory / "model" if start else model_of(previous, name)
        result = train_student(dataset, records, embeddings, config, directory, start=model)
        return {**result, **previous_result(previous)}

    return access.make(
        run_dir / name,
        flags={"start": start.name if start else INIT_FROM if previous else "none", **flags},
        inputs={
            **inputs,
            **previous_input(previous),
            targets.name: targets.fingerprint,
            **({start.name: start.fingerprint} if start else {}),
        },
        work=telling_damage(dataset, work),
        scratch=[CHECKPOINTS],
        together=True,
    )


def _targets_flags(
    config: TargetsConfig, dataset: PreparedDataset, aligned: bool
) -> dict[str, Any]:
    """Returns the flags that decide targets.

    How views are made, and whether unlabelled pictures are used, only where there are some; on what
    to align only where it is another thing than usual and there is something to align to.
    """
    flags = dataclasses.asdict(config)
    if config.align_on == TargetsConfig.align_on or not aligned:
        del flags["align_on"]
    if config.views == 1:
        del flags["augment"], flags["seed"]
    if not len(dataset.select(split=UNLABELLED)):
        del flags["unlabelled"]
    return flags


def _made_of_reference(
    reference: Stage | FrozenBackbone | None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the flags and input fingerprints by which a reference decides targets."""
    if reference is None:
        return {"align_to": "none"}, {}
    if isinstance(reference, Stage):
        return {"align_to": reference.name}, {reference.name: reference.fingerprint}
    flags = dataclasses.asdict(reference)
    # By content, not by path.
    inputs = weights_input(flags.pop("init_weights"))
    return {"align_to": "frozen", "frozen": flags}, inputs


def _with_most_pictures(dataset: PreparedDataset, specialists: Sequence[Stage]) -> Stage:
    """Returns the specialist of the vertical with most training pictures; of equals the first."""
    count = {
        vertical: len(dataset.select(split="train", verticals=[vertical]))
        for stage in specialists
        for vertical in stage.flags["verticals"]
    }
    return max(specialists, key=lambda stage: max(count[v] for v in stage.flags["verticals"]))
