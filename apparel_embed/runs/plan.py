"""Dry-run plans: a run's stages are looked up one after the other, but not run."""

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
    """A stage and what would happen to it.

    Attributes:
      name: its directory, relative to the run's.
      state: what would be done, such as "to do" or "finished".
      size: the amount of work, in words; "" if unknown.
    """

    name: str
    state: str
    size: str = ""


class StagePlan:
    """The stages that a run would make, in order.

    Its `access` replaces the real one. Unfinished stages have no result, but the fingerprint that
    they would have, so that the stages that depend on them can be looked up too.

    Existing stages that were made with other flags or inputs are collected, so that all are
    reported at once: see `refuse`.

    Args:
      run_dir: the run's directory.
      redo_from: names of stages to redo, together with all stages that depend on them; the plan
        ignores their content.

    Attributes:
      stages: the planned stages by directory, in order.
      notes: sentences for the reader of the plan.
      work: what would be trained, as far as known.
      train_images: images of split train, once the dataset is known.

    Raises:
      UserError: a name in `redo_from` is not a stage of the run.
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
        """Access that plans stages instead of running them."""
        return StageAccess(self.make, self.find, log=lambda *_: None, doubt=self.doubt)

    def add(self, directory: Path, state: str, size: str) -> None:
        """Adds a stage or other work, such as preparing the dataset."""
        name = os.path.relpath(directory, self._run_dir)
        self.stages[directory] = PlannedStage(name, state, size)

    def doubt(self, note: str = "") -> None:
        """Records that later stages depend on results that are not known yet.

        Args:
          note: a sentence for the reader of the plan.
        """
        self._is_certain = False
        self.notes += [note] if note else []

    def make(self, spec: StageSpec) -> Stage:
        """Looks a stage up instead of running it; raises the errors of `run_stage`."""
        directory = spec.directory
        if directory in self._redone or spec.partial in self._redone:
            state, stage = "to be redone", spec.planned()
        else:
            # Unknown inputs must not be a reason to refuse a stage.
            overwrite = spec.overwrite if self._is_certain else True
            try:
                state, stage = look_up_stage(dataclasses.replace(spec, overwrite=overwrite))
            except StageDiffers as error:
                self._differing[directory.name] = error
                state, stage = "made with other flags or inputs", spec.planned()
            if not self._is_certain and directory.exists() and not stage.skipped:
                state = "exists, checked when reached"
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
        """Raises a UserError that names all stages made with other flags or inputs, if any."""
        if not self._differing:
            return
        if len(self._differing) == 1 and not self._redo_from:
            raise next(iter(self._differing.values()))
        # Stages that differ only because an earlier one does are listed separately.
        first = {
            name: "; ".join(error.differences.values())
            for name, error in self._differing.items()
            if not self._differing.keys() & error.differences.keys()
        }
        others = [name for name in self._differing if name not in first]
        reasons = [f"{name} {why}" for name, why in first.items()]
        reasons += [f"stages that depend on them: {', '.join(others)}"] if others else []
        raise UserError(
            f"{self._run_dir}: {'; '.join(reasons)}. Use another --run_dir, or redo them with "
            f"tools/run_pipeline.py --redo_from={','.join([*self._redo_from, *first])}, which "
            "keeps the old ones"
        )

    def render(self, time: str = "") -> str:
        """Returns the plan as a table for people.

        Args:
          time: a sentence on how long it will take, or "".

        Raises:
          UserError: see `refuse`.
        """
        self.refuse()
        rows = list(self.stages.values())
        names = max((len(row.name) for row in rows), default=0)
        states = max((len(row.state) for row in rows), default=0)
        lines = [f"{row.name:{names}}  {row.state:{states}}  {row.size}".rstrip() for row in rows]
        lines += [*self.notes, *([time] if time else [])]
        return "\n".join([*lines, "Nothing was run or written (--dry_run)."])
