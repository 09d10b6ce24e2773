"""What a run would do: its stages looked up one after the other, and none made."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.store.record import Stage, StageSpec, Workload, find_stage
from apparel_embed.store.runs import StageAccess, StageDiffers, look_up_stage, stages_from


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


class StagePlan:
    """Stages that would be made, in their order.

    Its `access` takes the place of the real one. Stages that are not finished have no result, but
    the fingerprint that they would have, so that those that are made of them can be looked up too.

    Stages that are there but were made with other flags or inputs are gathered, so that all are
    reported at once: see `refuse`.

    Args:
      run_dir: the run's directory.
      redo_from: names of stages to make again, with all that was made from them; the plan ignores
        what is in them.

    Attributes:
      stages: what would become of each, by directory, in their order.
      notes: sentences for who reads the plan.
      work: what would be trained, as far as it is known.
      train_images: images of split train, once the dataset is known.

    Raises:
      UserError: if there is no stage of a name.
    """

    def __init__(self, run_dir: Path, redo_from: Collection[str] = ()) -> None:
        self._run_dir = run_dir
        self._redo_from = redo_from
        self._redone = stages_from(run_dir, redo_from)
        self._differing: dict[str, StageDiffers] = {}
        self._made: dict[Path, Stage] = {}
        self._is_certain = True
        self.stages: dict[Path, PlannedStage] = {}
        self.notes: list[str] = []
        self.work = Workload()
        self.train_images = 0

    @property
    def access(self) -> StageAccess:
        """How the stages of a plan are made and found."""
        return StageAccess(self.make, self.find, log=lambda *_: None, doubt=self.doubt)

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

    def make(self, spec: StageSpec) -> Stage:
        """Looks a stage up instead of making it; its errors are those of `run_stage`."""
        directory = spec.directory
        if directory in self._redone or spec.partial in self._redone:
            state, stage = "to be redone", spec.planned()
        else:
            # What is not known yet cannot be the reason to refuse.
            overwrite = spec.overwrite if self._is_certain else True
            try:
                state, stage = look_up_stage(dataclasses.replace(spec, overwrite=overwrite))
            except StageDiffers as error:
                self._differing[directory.name] = error
                state, stage = "there, made otherwise", spec.planned()
            if not self._is_certain and directory.exists() and not stage.skipped:
                state = "there, compared when its turn comes"
        if directory not in self._made and not stage.skipped:
            self.work += spec.workload
        self._made[directory] = stage
        self.add(directory, state, "" if stage.skipped else spec.size)
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
