"""Use of an earlier run in a new one: its student, that student's verticals, and its targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.distillation.spaces import reference_embeddings
from apparel_embed.distillation.targets import Targets
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.evaluation.growth import cost_ratio, measure_growth
from apparel_embed.evaluation.models import embed_by_model
from apparel_embed.evaluation.roles import UNIFIED
from apparel_embed.evaluation.split import EvaluationSet
from apparel_embed.evaluation.training_cost import training_costs
from apparel_embed.runs.config import REFERENCES
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.start import Start, old_student
from apparel_embed.store.names import EVALUATION, OLD_STUDENT, PREPARED, STUDENT, TARGETS
from apparel_embed.store.record import Stage, find_stage, open_stage

OLD_TARGETS = "old_targets"
GROWTH_INPUTS = ("gallery_model", "growth_compare_to")
"""Inputs of an evaluation: the flags that name the students to compare with."""
COMPARED = "compared"
"""Their directories in an evaluation's result."""


@dataclasses.dataclass(frozen=True)
class Growth:
    """Students to compare a new one with.

    Attributes:
      old: the stage of the earlier student, whose embedding space the new one shares.
      full: the stage of a full run's student, or None.
    """

    old: Stage
    full: Stage | None = None

    @property
    def inputs(self) -> Mapping[str, str]:
        """Both students as inputs of a stage."""
        return {name: stage.fingerprint for name, stage in self._by_flag.items()}

    @property
    def directories(self) -> Mapping[str, str]:
        """The directories of both students, by input."""
        return {name: str(stage.directory.resolve()) for name, stage in self._by_flag.items()}

    @property
    def _by_flag(self) -> Mapping[str, Stage]:
        stages = zip(GROWTH_INPUTS, (self.old, self.full))
        return {name: stage for name, stage in stages if stage}


@dataclasses.dataclass(frozen=True, eq=False)
class OldImages:
    """The images of a grown dataset that come from an earlier run.

    Attributes:
      replayed: int64 [n] their records in the earlier dataset; here they are the first n.
      student: the earlier student's stage.
      targets: the stage of the targets that it learnt from, on the same dataset; None if missing.
    """

    replayed: np.ndarray
    student: Stage
    targets: Stage | None

    @classmethod
    def of(cls, replayed: np.ndarray, student: Stage, dataset: PreparedDataset) -> OldImages:
        """Finds the targets of an earlier student, given the dataset that it learnt from."""
        found = find_stage(student.directory.parent / TARGETS)
        is_same = (
            found is not None
            and found.fingerprint == student.inputs.get(TARGETS)
            and found.inputs.get("prepared") == dataset.fingerprint
        )
        return cls(replayed, student, found if is_same else None)

    @property
    def flags(self) -> dict[str, str]:
        """How their targets are obtained, as a flag of a stage."""
        return {OLD_TARGETS: "kept" if self.targets else "embedded"}

    @property
    def inputs(self) -> dict[str, str]:
        """The targets as an input of a stage."""
        return {OLD_TARGETS: self.targets.fingerprint} if self.targets else {}

    def before(
        self, new: Targets, dataset: PreparedDataset, files: tuple[str, str], *, unlabelled: bool
    ) -> Targets:
        """Returns the targets of the old images followed by those of the new ones.

        Args:
          new: targets of the new images.
          dataset: the grown dataset.
          files: names of the files of targets to learn, and of held-out targets.
          unlabelled: whether the student learns from images of split unlabelled.
        """
        splits = dataset.column("split")[: len(self.replayed)]
        to_learn = ("train", UNLABELLED) if unlabelled else ("train",)
        learnt = np.flatnonzero(np.isin(splits, to_learn))
        held_out = np.flatnonzero(splits == "val")
        dim = new.embeddings.shape[1]
        first, rest = (
            self._targets(records, dataset, file, dim)
            for records, file in zip((learnt, held_out), files)
        )
        return dataclasses.replace(
            new,
            records=np.concatenate([learnt, new.records]),
            embeddings=np.concatenate([first, new.embeddings]),
            held_out_records=np.concatenate([held_out, new.held_out_records]),
            held_out=np.concatenate([rest, new.held_out]),
        )

    def _targets(
        self, records: np.ndarray, dataset: PreparedDataset, file: str, dim: int
    ) -> np.ndarray:
        """Returns the targets of some records: stored ones, else the student's embeddings."""
        targets = np.zeros([len(records), dim], np.float32)
        is_kept = np.zeros(len(records), bool)
        if self.targets:
            known, embeddings = read_embeddings(self.targets.directory / file)
            _, ours, theirs = np.intersect1d(
                self.replayed[records], known, assume_unique=True, return_indices=True
            )
            targets[ours], is_kept[ours] = embeddings[theirs], True
        if not is_kept.all():
            model = self.student.directory / "model"
            rest = records[~is_kept]
            targets[~is_kept] = reference_embeddings(model, dataset, rest, dim)
        return targets


def known_verticals(student: Stage) -> tuple[str, ...]:
    """Returns the verticals that a student was trained on."""
    # Students of earlier versions do not record them.
    recorded = student.result.get("verticals")
    return tuple(recorded or PreparedDataset.open(student.directory.parent / PREPARED).verticals)


def check_growth(growth: Growth, dataset: PreparedDataset, student: Stage | None) -> None:
    """Raises a UserError if a student cannot be compared with an earlier one."""
    name = f"--gallery_model={growth.old.directory}"
    if student is None:
        raise UserError(f"{name}: requires a student of this run to compare with")
    ours, theirs = (one.flags["model"]["embedding_dim"] for one in (student, growth.old))
    if ours != theirs:
        raise UserError(
            f"{name}: its embeddings have {theirs} numbers, those of {student.directory} {ours}; "
            "expected equal lengths, so that one can search the other's embeddings"
        )
    known = known_verticals(growth.old)
    if not set(known) & set(dataset.verticals):
        raise UserError(
            f"{name}: was trained on {', '.join(known)}, but {dataset.directory} has "
            f"{', '.join(dataset.verticals)}; expected a common vertical"
        )


def compare_growth(
    growth: Growth,
    run: Run,
    student: Stage,
    images: EvaluationSet,
    embeddings: np.ndarray,
    seed: int,
) -> dict[str, Any]:
    """Returns the content of `growth.json`.

    Args:
      growth: the students to compare with.
      run: the run.
      student: the stage of its student.
      images: the evaluation set.
      embeddings: float32 [n, dim], the student's embeddings of these images.
      seed: seed of the bootstrap.
    """

    def embed(student: Stage) -> np.ndarray:
        model = student.directory / "model"
        return embed_by_model(run.dataset, images.records, model).embeddings

    known = known_verticals(growth.old)
    found = measure_growth(
        images,
        old=embed(growth.old),
        new=embeddings,
        full=embed(growth.full) if growth.full else None,
        old_verticals=known,
        seed=seed,
    )
    other = growth.full or growth.old
    cost, compared = (
        training_costs(one.directory.parent, {UNIFIED: [one]})[0] for one in (student, other)
    )
    return {
        "old_model": str(growth.old.directory),
        "old_verticals": sorted(set(known) & set(run.dataset.verticals)),
        "new_verticals": sorted(set(run.dataset.verticals) - set(known)),
        **found,
        "cost_ratio": cost_ratio(cost, compared, str(other.directory.parent)),
    }


def growth_of(pipeline: PipelineRun) -> Growth | None:
    """Returns the students to compare a pipeline's with; None if it is not aligned to a run."""
    config = pipeline.config
    old = None
    if config.align_to not in REFERENCES:
        dim = config.student.model.embedding_dim
        old = old_student("align_to", Path(config.align_to), config.run_dir, dim)
    return find_growth(pipeline.run, old, full_student(config.growth.growth_compare_to))


def find_growth(run: Run, old: Stage | None, full: Stage | None) -> Growth | None:
    """Returns the students to compare a run's with, or None.

    A student that is not named is that of the run's finished evaluation, or else, for the earlier
    one, the student that the run's own is aligned to. It is left out if it no longer exists or was
    made again.

    Args:
      run: the run.
      old: the stage of an earlier student, or None.
      full: the stage of a full run's student, or None.

    Raises:
      UserError: if only `full` is given.
    """
    targets, evaluation = run.find(TARGETS), run.find(EVALUATION)
    if evaluation:
        compared = evaluation.result.get(COMPARED, {})
        known = [_unchanged(compared.get(one), evaluation.inputs.get(one)) for one in GROWTH_INPUTS]
        old, full = old or known[0], full or known[1]
    if old is None and targets:
        old = _unchanged(targets.result.get(OLD_STUDENT), targets.inputs.get(OLD_STUDENT))
    if old is not None:
        return Growth(old, full)
    if full:
        raise UserError("--growth_compare_to requires --gallery_model, an earlier run's student")
    return None


def _unchanged(directory: str | None, fingerprint: str | None) -> Stage | None:
    """Returns a student's stage if it exists and has this fingerprint."""
    stage = find_stage(Path(directory)) if directory else None
    if stage and stage.fingerprint == fingerprint:
        return stage
    if directory:
        logging.warning("%s: no longer exists or was made again; not compared with it", directory)
    return None


def is_grown(run: Run) -> bool:
    """Returns whether a finished run was grown, with teachers only of new verticals."""
    targets = run.find(TARGETS)
    return targets is not None and OLD_TARGETS in targets.flags


def new_verticals(run: Run, targets: Stage, start: Start) -> list[str]:
    """Returns the verticals that a student is to learn in addition to an earlier student's.

    Args:
      run: the run.
      targets: the stage of its targets.
      start: the model that the student starts from; it grows only from an earlier student.
    """
    if OLD_TARGETS not in targets.flags or start.previous is None:
        return []
    return sorted(set(run.dataset.verticals) - set(known_verticals(start.previous)))


def full_student(run_dir: Path | None) -> Stage | None:
    """Opens the student of a full run, if one is given for comparison."""
    return open_stage(run_dir / STUDENT) if run_dir else None
