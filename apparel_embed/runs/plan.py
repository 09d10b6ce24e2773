"""What a run would do: its stages looked up one after the other, and none made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import counted
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.store.record import Stage, find_stage, partial_of
from apparel_embed.store.runs import (
    StageAccess,
    StageDiffers,
    StageWork,
    look_up_stage,
    planned_stage,
    stages_from,
)

_GROUPING = "grouping-"
# Of a stage that is there, but of which cannot be told yet whether it is made of the same.
_COMPARED_LATER = "there, compared when its turn comes"


@dataclasses.dataclass(frozen=True)
class PlannedStage:
    """A stage, and what would become of it.

    Attributes:
      name: its directory, seen from the run's.
      state: what would be done, such as "to do" or "finished".
      size: how much that is, in words; "" if that is not known.
    """

    name: str
    state: str
    size: str = ""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is to be trained.

    Attributes:
      triplet_steps: steps of combined models and specialists.
      student_steps: steps of the student.
      views: augmented views of images that go through a frozen backbone once. Steps on these take
        milliseconds, and are not among those above.
    """

    triplet_steps: int = 0
    student_steps: int = 0
    views: int = 0

    def __add__(self, other: Workload) -> Workload:
        return Workload(
            self.triplet_steps + other.triplet_steps,
            self.student_steps + other.student_steps,
            self.views + other.views,
        )


class StagePlan:
    """Stages that would be made, in their order.

    Its `access` takes the place of the real one. Stages that are not finished have no result, but
    the fingerprint that they would have, so that those that are made of them can be looked up too.

    Stages that are there but were made with other flags or inputs are gathered, so that all are
    told at once: see `refuse`.

    Args:
      run_dir: the run's directory.
      redo_from: names of stages to make again, with all that was made from them; the plan ignores
        what is in them.

    Attributes:
      stages: what would become of each, by directory, in their order.
      notes: sentences for who reads the plan.

    Raises:
      UserError: if there is no stage of a name.
    """

    def __init__(self, run_dir: Path, redo_from: Collection[str] = ()) -> None:
        self._run_dir = run_dir
        self._redo_from = redo_from
        self._redone = stages_from(run_dir, redo_from)
        self._differing: dict[str, StageDiffers] = {}
        self.stages: dict[Path, PlannedStage] = {}
        self.notes: list[str] = []
        self._made: dict[Path, Stage] = {}
        self._dataset: PreparedDataset | None = None
        self._is_certain = True

    @property
    def access(self) -> StageAccess:
        """How the stages of a plan are made and found."""
        return StageAccess(self.make, self.find, tell=lambda *_: None)

    def of(self, dataset: PreparedDataset) -> StagePlan:
        """Tells of what dataset stages are, by which their sizes are known."""
        self._dataset = dataset
        return self

    @property
    def work(self) -> Workload:
        """What would be trained, as far as it is known."""
        unmade = [stage for stage in self._made.values() if not stage.skipped]
        return sum((self._work_of(stage) for stage in unmade), Workload())

    def _work_of(self, stage: Stage) -> Workload:
        """Returns what a stage trains, as far as its flags tell."""
        flags = stage.flags
        if "views" in flags and self._dataset:
            return Workload(views=len(_learnt(self._dataset)) * flags["views"])
        if "optimization" not in flags or stage.name.startswith(_GROUPING):
            return Workload()
        if any("views" in one.flags and one.name in stage.inputs for one in self._made.values()):
            return Workload()
        steps = flags["optimization"]["steps"]
        if "items_per_batch" in flags:
            return Workload(triplet_steps=steps)
        return Workload(student_steps=steps)

    @property
    def train_pictures(self) -> int:
        """Images of split train, as far as a dataset is told; 0 without."""
        return len(self._dataset.select(split="train")) if self._dataset else 0

    def add(self, directory: Path, state: str, size: str) -> None:
        """Adds a stage, or what is none, such as the preparing of the dataset."""
        name = os.path.relpath(directory, self._run_dir)
        self.stages[directory] = PlannedStage(name, state, size)

    def doubt(self, note: str = "") -> None:
        """Tells that what follows depends on what is not known before it is made.

        Args:
          note: a sentence for who reads the plan.
        """
        self._is_certain = False
        self.notes += [note] if note else []

    def make(
        self,
        directory: Path,
        *,
        flags: Mapping[str, Any],
        inputs: Mapping[str, str],
        work: StageWork,
        renewed: bool | Collection[str] = False,
        twins: Sequence[Path] = (),
        scratch: Sequence[str] = (),
        together: bool = False,
    ) -> Stage:
        """Looks a stage up instead of making it; arguments and errors are those of `run_stage`."""
        del work, scratch, together
        if directory in self._redone or partial_of(directory) in self._redone:
            return self._planned("to be redone", planned_stage(directory, flags, inputs))
        # What is not known yet cannot be the reason to refuse.
        allowed = renewed if self._is_certain else True
        try:
            state, stage = look_up_stage(
                directory, flags=flags, inputs=inputs, renewed=allowed, twins=twins
            )
        except StageDiffers as error:
            self._differing[directory.name] = error
            state, stage = "there, made otherwise", planned_stage(directory, flags, inputs)
        if not self._is_certain and directory.exists() and not stage.skipped:
            state = _COMPARED_LATER
        return self._planned(state, stage)

    def _planned(self, state: str, stage: Stage) -> Stage:
        size = "" if stage.skipped else _size_of(stage, self._dataset)
        self.add(stage.directory, state, size)
        self._made[stage.directory] = stage
        return stage

    def find(self, directory: Path) -> Stage | None:
        """Returns a stage that is planned or finished."""
        planned = self._made.get(directory)
        return planned or (None if directory in self._redone else find_stage(directory))

    def refuse(self) -> None:
        """Raises a UserError that names all stages made with other flags or inputs, if any is."""
        if not self._differing:
            return
        if len(self._differing) == 1 and not self._redo_from:
            raise next(iter(self._differing.values()))
        # Those that differ only because an earlier one does follow from it.
        first = {
            name: "; ".join(error.differences.values())
            for name, error in self._differing.items()
            if not self._differing.keys() & error.differences.keys()
        }
        others = [name for name in self._differing if name not in first]
        told = [f"{name} {why}" for name, why in first.items()]
        told += [f"made from that, and to be redone: {', '.join(others)}"] if others else []
        raise UserError(
            f"{self._run_dir}: {'; '.join(told)}. Name another --run_dir, or redo them by "
            f"tools/run_pipeline.py with --redo_from={','.join([*self._redo_from, *first])}, "
            "which keeps the old ones"
        )

    def render(self, time: str = "") -> str:
        """Returns the plan as a table for people.

        Args:
          time: a sentence on how long it will take, or "".

        Raises:
          UserError: as `refuse`.
        """
        self.refuse()
        rows = list(self.stages.values())
        names = max((len(row.name) for row in rows), default=0)
        states = max((len(row.state) for row in rows), default=0)
        lines = [f"{row.name:{names}}  {row.state:{states}}  {row.size}".rstrip() for row in rows]
        lines += [*self.notes, *([time] if time else [])]
        return "\n".join([*lines, "Nothing was done or written (--dry_run)."])


def _size_of(stage: Stage, dataset: PreparedDataset | None) -> str:
    """Returns how much work a stage is, as far as its flags tell."""
    flags = stage.flags
    if dataset is None or stage.name.startswith(_GROUPING):
        return ""
    if "items_per_batch" in flags:
        verticals = flags["verticals"]
        pictures = len(dataset.select(split="train", verticals=verticals))
        batch = f"{flags['items_per_batch']} x {flags['pictures_per_item']}"
        return f"{_steps(flags)} of {batch} pictures, out of {pictures:,}"
    if "batch_size" in flags and "optimization" in flags:
        pictures = len(_learnt(dataset))
        return f"{_steps(flags)} of {flags['batch_size']} pictures, out of {pictures:,}"
    if "align_to" in flags:
        unlabelled = flags.get("unlabelled", False)
        pictures = len(_learnt(dataset) if unlabelled else dataset.select(split="train"))
        return counted(pictures, "picture")
    if stage.name == "evaluation":
        return counted(len(dataset.select(split=flags["split"])), "picture")
    return ""


def _steps(flags: Mapping[str, Any]) -> str:
    return counted(flags["optimization"]["steps"], "step")


def _learnt(dataset: PreparedDataset) -> list[int]:
    """Returns the records that a student may learn from."""
    return [*dataset.select(split="train"), *dataset.select(split=UNLABELLED)]
