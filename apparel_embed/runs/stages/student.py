"""The stages that lead from specialists to the student: targets, their alignment, training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.distillation.spaces import FrozenBackbone
from apparel_embed.distillation.targets import TargetsConfig, Teacher, compute_targets
from apparel_embed.evaluation.embeddings import read_embeddings, write_embeddings
from apparel_embed.inference.damage import telling_damage
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.previous import (
    model_of,
    previous_result,
    previous_stage,
    weights_input,
)
from apparel_embed.runs.stages.training import (
    COMBINED_START,
    STUDENT,
    TARGETS,
    made_of,
    start_flag,
    start_input,
)
from apparel_embed.runs.stages.views import read_views, views_input, views_stage
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import REAL, StageAccess
from apparel_embed.training.checkpoints import DIRECTORY as CHECKPOINTS
from apparel_embed.training.student import StudentConfig, train_student

TARGETS_FILE = "targets.parquet"
HELD_OUT_FILE = "held_out.parquet"
REFERENCES = {
    "combined": "the combined model that specialists start from",
    "none": "leaves them as they are",
    "frozen": "principal components of the features of the backbone with its initial weights",
}
"""What teachers' spaces can be rotated onto, by name, with what it is."""


def find_reference(
    align_to: str,
    run_dir: Path,
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
    combined = access.find(run_dir / COMBINED_START)
    if combined is None:
        raise UserError(
            f"--align_to={align_to} needs another stage: {run_dir / COMBINED_START} is not there, "
            "or not finished"
        )
    return combined


def targets_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    teachers: Sequence[Stage],
    reference: Stage | FrozenBackbone | None,
    config: TargetsConfig = TargetsConfig(),
    name: str = TARGETS,
    access: StageAccess = REAL,
) -> Stage:
    """Exports the student's targets to `<stage>/targets.parquet`.

    What the teachers say of split val is in `<stage>/held_out.parquet`, to measure by and not to
    learn from.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      teachers: finished stages of triplet models; a vertical may have several.
      reference: onto whose space theirs are rotated: the stage of a model, the frozen backbone, or
        None.
      config: how targets are made.
      name: of the stage.
      access: how stages are made.
    """
    known = [Teacher(s.name, tuple(s.flags["verticals"]), s.directory / "model") for s in teachers]
    flags, inputs = _made_of_reference(reference)

    def work(directory: Path) -> dict[str, Any]:
        found = compute_targets(
            dataset,
            known,
            reference=reference.directory / "model" if isinstance(reference, Stage) else reference,
            config=config,
        )
        write_embeddings(directory / TARGETS_FILE, found.records, found.embeddings)
        write_embeddings(directory / HELD_OUT_FILE, found.held_out_records, found.held_out)
        return {
            "pictures": len(found.records),
            "unlabelled": int(np.isin(found.records, dataset.select(split=UNLABELLED)).sum()),
            "dim": found.embeddings.shape[1],
            "teachers": list(found.teachers),
            "choices": [dataclasses.asdict(choice) for choice in found.choices],
        }

    return access.make(
        run_dir / name,
        flags={**flags, **_targets_flags(config, dataset)},
        inputs={
            "prepared": dataset.fingerprint,
            **{stage.name: stage.fingerprint for stage in teachers},
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
    config = settled_student(dataset, config, bool(targets.flags.get("unlabelled")))
    flags, inputs = made_of(config, dataset)
    previous = None
    if config.init_from and not start:
        previous = previous_stage(config.init_from, (STUDENT,), config.model, run_dir)

    views = views_stage(run_dir, dataset, config, start, previous, access)

    def work(directory: Path) -> dict[str, Any]:
        taught = read_embeddings(targets.directory / TARGETS_FILE)
        model = start.directory / "model" if start else model_of(previous, name)
        result = train_student(
            dataset,
            taught,
            read_embeddings(targets.directory / HELD_OUT_FILE),
            config,
            directory,
            start=model,
            views=read_views(views, dataset, taught[0]),
        )
        return {**result, **previous_result(previous)}

    return access.make(
        run_dir / name,
        flags={**start_flag(start, previous), **flags},
        inputs={
            **inputs,
            **start_input(start, previous),
            **views_input(views),
            targets.name: targets.fingerprint,
        },
        work=telling_damage(dataset, work),
        scratch=[CHECKPOINTS],
        together=True,
    )


def settled_student(
    dataset: PreparedDataset, config: StudentConfig, unlabelled: bool
) -> StudentConfig:
    """Returns a student's training with its steps decided.

    Args:
      dataset: a prepared dataset.
      config: how to train.
      unlabelled: whether images of split unlabelled are learnt from, too.
    """
    pictures = len(dataset.select(split="train"))
    further = len(dataset.select(split=UNLABELLED)) if unlabelled else 0
    return config.settled(pictures + further, pictures)


def _targets_flags(config: TargetsConfig, dataset: PreparedDataset) -> dict[str, Any]:
    """Returns the flags that decide targets: whether unlabelled images are used where there are."""
    flags = dataclasses.asdict(config)
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
