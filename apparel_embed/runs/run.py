"""A run as its stages see it, and what a kind of stage says of itself."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from apparel_embed.data.growing import GrownFrom
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.grouping.strategies import Groups
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.runs.config import PipelineConfig
from apparel_embed.store.record import Stage, StageSpec
from apparel_embed.store.runs import REAL, StageAccess

_Config = TypeVar("_Config")


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage of a run is made with.

    Attributes:
      directory: of the run.
      dataset: the prepared dataset.
      access: how stages are made and found.
    """

    directory: Path
    dataset: PreparedDataset
    access: StageAccess = REAL

    def make(
        self,
        name: str | Path,
        work: Callable[[Path], Mapping[str, Any]],
        *,
        flags: Mapping[str, Any],
        inputs: Mapping[str, str],
        **options: Any,
    ) -> Stage:
        """Makes a stage from the dataset and other inputs, or finds it finished.

        Args:
          name: of the stage; or a path, that of its directory.
          work: as in `StageSpec`.
          flags: likewise.
          inputs: likewise, but for the dataset.
          **options: further fields of `StageSpec`.

        Raises:
          UserError: as `run_stage`, or if an image of the dataset is damaged.
        """
        return self.access.make(
            StageSpec(
                name if isinstance(name, Path) else self.directory / name,
                flags=flags,
                inputs={"prepared": self.dataset.fingerprint, **inputs},
                work=report_corrupt_records(self.dataset, work),
                **options,
            )
        )

    def find(self, name: str) -> Stage | None:
        """Returns a stage if it is finished, or planned."""
        return self.access.find(self.directory / name)

    def learnt(self, *, unlabelled: bool = True) -> int:
        """Returns how many images a student may learn from: those of split train and unlabelled."""
        splits = ("train", UNLABELLED) if unlabelled else ("train",)
        return sum(len(self.dataset.select(split=split)) for split in splits)


@dataclasses.dataclass
class PipelineRun:
    """A pipeline on its way.

    Attributes:
      run: the run.
      config: what is to be made.
      kinds: of stages, in the order of their making.
      is_measured: whether the split to evaluate on answers a query.
      photographs: the whole photographs that a detector learns from, or None without one.
      groups: verticals that share a specialist, once this is known.
      stages: what was made so far, by the name of the kind.
      grown: what the dataset is made of where the run grows from an earlier one; else None.
    """

    run: Run
    config: PipelineConfig
    kinds: Sequence[StageKind]
    is_measured: bool = True
    photographs: PreparedDataset | None = None
    groups: Groups = ()
    stages: dict[str, Sequence[Stage]] = dataclasses.field(default_factory=dict)
    grown: GrownFrom | None = None

    def __getitem__(self, kind: str) -> Stage:
        return self.stages[kind][0]

    @property
    def teaching(self) -> Run:
        """The run as its teachers see it: where it grows, with the new images alone."""
        return dataclasses.replace(self.run, dataset=self.grown.new) if self.grown else self.run

    def get(self, kind: str) -> Stage | None:
        """Returns the first stage of a kind; None if there is none."""
        return next(iter(self.stages.get(kind, ())), None)

    def settings(self, config: type[_Config]) -> _Config:
        """Returns the configuration that a kind of stage has of its own, by its class."""
        kind = next(kind for kind in self.kinds if kind.config is config)
        return self.config.of_stages.get(kind.name) or config()

    def make_stages(self) -> None:
        """Makes the stages of every kind."""
        for kind in self.kinds:
            make = pkgutil.resolve_name(kind.make) if isinstance(kind.make, str) else kind.make
            self.stages[kind.name] = make(self) if make else ()


@dataclasses.dataclass(frozen=True)
class StageKind:
    """A kind of stage.

    Attributes:
      name: of its directory, or what the names of its directories begin with.
      make: makes the stages of this kind that a pipeline needs, from those made before; or where
        that function is, as "module:function", which is imported when it is called; None where only
        a binary of their own makes them.
      in_report: whether the report shows what was found, as one of `ReportInputs.stages`.
      config: dataclass of the settings that it has of its own, which become flags of the pipeline,
        see `PipelineRun.settings`; None if it has none.
    """

    name: str
    make: Callable[[PipelineRun], Sequence[Stage]] | str | None = None
    in_report: bool = False
    config: type[Any] | None = None


def shown_in_report(run: Run, kinds: Sequence[StageKind]) -> list[Stage]:
    """Returns the stages beside evaluation and trainings that a report shows, as far as made."""
    found = (run.find(kind.name) for kind in kinds if kind.in_report)
    return [stage for stage in found if stage]
