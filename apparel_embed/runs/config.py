"""What a pipeline is made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from apparel_embed.data.prepare import PrepareConfig
from apparel_embed.data.synthetic.world import SyntheticConfig
from apparel_embed.distillation.targets import TargetsConfig
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.serving.saved_model import ExportConfig
from apparel_embed.store.names import COMBINED
from apparel_embed.training.readiness import JOIN
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """What the whole way is made of.

    Attributes:
      run_dir: where everything goes.
      synthetic: garments to draw and prepare, or None where `prepare` names a manifest.
      prepare: how to prepare; its output is a directory of the run.
      specialist: how the specialist of one vertical is trained. That of a group is trained alike,
        for as many steps as its verticals' specialists together.
      student: how the student is trained.
      combined_steps: steps of the combined model for each vertical, before specialists and student
        start from it. The combined model that they are compared with then goes on for as many
        steps as all of them take.
      combined_learning_rate: of the combined model at its peak; None for that of specialists.
      combined_seeds: combined models, alike but for their seeds, that teach the student.
        Specialists and student start from the first.
      grouping: how verticals are grouped.
      align_to: onto whose space targets are rotated, one of `REFERENCES`.
      targets: how targets are made.
      small_verticals: what becomes of verticals that are too small for a specialist, one of
        `SMALL_VERTICALS`.
      single_specialists: whether the specialist of every vertical is trained, to teach and to
        compare with, also where verticals share one.
      specialists_start_from_combined: whether specialists start from the combined model's weights,
        else as their configuration says.
      start_from_combined: whether the student does.
      split: to evaluate on.
      processes: for work on pictures.
      measure_speed: whether the report measures images per second.
      vertical_head: whether the served model tells a picture's vertical.
      export: how the SavedModel is exported.
      redo_from: names of stages to make again, with all that was made from them.
    """

    run_dir: Path
    synthetic: SyntheticConfig | None
    prepare: PrepareConfig
    specialist: SpecialistConfig
    student: StudentConfig
    combined_steps: int
    combined_learning_rate: float | None = None
    combined_seeds: int = 1
    grouping: SearchConfig = SearchConfig()
    align_to: str = COMBINED
    targets: TargetsConfig = TargetsConfig()
    small_verticals: str = JOIN
    single_specialists: bool = True
    specialists_start_from_combined: bool = True
    start_from_combined: bool = True
    split: str = "test"
    processes: int = 1
    measure_speed: bool = True
    vertical_head: bool = False
    export: ExportConfig = ExportConfig()
    redo_from: tuple[str, ...] = ()
