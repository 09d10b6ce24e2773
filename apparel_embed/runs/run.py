"""A run as its stages see it, and the description of a kind of stage."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

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
    """The directory, the dataset and the stages of a run.

    Attributes:
      directory: the run's directory.
      dataset: the prepared dataset.
      access: how stages are run and found.
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
        """Runs a stage on the dataset and other inputs, or finds it finished.

        Args:
          name: the stage's name, or the path of its directory.
          work: as in `StageSpec`.
          flags: as in `StageSpec`.
          inputs: as in `StageSpec`, without the dataset.
          **options: other fields of `StageSpec`.

        Raises:
          UserError: see `run_stage`; or an image of the dataset is damaged.
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
        """Returns a stage if it is finished or planned, else None."""
        return self.access.find(self.directory / name)

    def learnt(self, *, unlabelled: bool = True) -> int:
        """Returns the number of images that a student learns from: splits train and unlabelled."""
        splits = ("train", UNLABELLED) if unlabelled else ("train",)
        return sum(len(self.dataset.select(split=split)) for split in splits)


@dataclasses.dataclass
class PipelineRun:
    """A running pipeline.

    Attributes:
      run: the run.
      config: the pipeline's configuration.
      kinds: the kinds of stages, in order.
      is_measured: whether the split to evaluate on has a query with a match.
      photographs: the whole photographs that a detector learns from, or None without a detector.
      groups: verticals that share a specialist, once known.
      stages: the stages so far, by the name of their kind.
      grown: the parts of the dataset if the run grows from an earlier one; else None.
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
        """The run as its teachers see it: with only the new images if the run grows."""
        return dataclasses.replace(self.run, dataset=self.grown.new) if self.grown else self.run

    def get(self, kind: str) -> Stage | None:
        """Returns the first stage of a kind, or None."""
        return next(iter(self.stages.get(kind, ())), None)

    def settings(self, config: type[_Config]) -> _Config:
        """Returns a stage kind's own configuration, given its class."""
        kind = next(kind for kind in self.kinds if kind.config is config)
        return self.config.of_stages.get(kind.name) or config()

    def make_stages(self) -> None:
        """Runs the stages of every kind."""
        for kind in self.kinds:
            make = pkgutil.resolve_name(kind.make) if isinstance(kind.make, str) else kind.make
            self.stages[kind.name] = make(self) if make else ()


@dataclasses.dataclass(frozen=True)
class StageKind:
    """A kind of stage.

    Attributes:
      name: the name of its directory, or the prefix of its directories' names.
      make: function that runs the stages of this kind that a pipeline needs, given the earlier
        ones; or its location as "module:function", imported when it is called; None if only a
        separate binary runs them.
      in_report: whether the report shows the result, as one of `ReportInputs.stages`.
      config: dataclass of its own settings, which become flags of the pipeline, see
        `PipelineRun.settings`; None if it has none.
    """

    name: str
    make: Callable[[PipelineRun], Sequence[Stage]] | str | None = None
    in_report: bool = False
    config: type[Any] | None = None


def shown_in_report(run: Run, kinds: Sequence[StageKind]) -> list[Stage]:
    """Returns the finished stages that a report shows besides the evaluation and trainings."""
    found = [run.find(kind.name) for kind in kinds if kind.in_report]
    shown = []
    for stage in filter(None, found):
        if stage.inputs.get("prepared") == run.dataset.fingerprint:
            shown.append(stage)
        else:
            logging.warning(
                "%s: was made from another dataset; not shown in the report", stage.directory
            )
    return shown
