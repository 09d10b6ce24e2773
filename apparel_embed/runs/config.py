"""What a pipeline is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apparel_embed.common.settings import setting
from apparel_embed.data.prepare import PrepareConfig
from apparel_embed.data.synthetic.world import SyntheticConfig
from apparel_embed.distillation.targets import TargetsConfig
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.serving.saved_model import ExportConfig
from apparel_embed.store.names import COMBINED
from apparel_embed.training.readiness import JOIN, SMALL_VERTICALS
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
      grouping: how verticals are grouped.
      align_to: onto whose space targets are rotated, one of `REFERENCES`.
      targets: how targets are made.
      specialists_start_from_combined: whether specialists start from the combined model's weights,
        else as their configuration says.
      start_from_combined: whether the student does.
      processes: for work on pictures.
      export: how the SavedModel is exported.
      of_stages: by the names of kinds of stages, what they have of their own, see
        `StageKind.config`; the default of those that are not here.
    """

    run_dir: Path
    synthetic: SyntheticConfig | None
    prepare: PrepareConfig
    specialist: SpecialistConfig
    student: StudentConfig
    combined_steps: int = setting(
        450,
        "training steps of the combined model for each vertical, before specialists and student "
        "start from it; the combined model that they are compared with then goes on for as many "
        "steps as all of them take",
        1,
    )
    combined_learning_rate: float | None = setting(
        None,
        "learning rate of the combined model at its peak; by default that of specialists",
        0.0,
        10.0,
        seldom=True,
    )
    combined_seeds: int = setting(
        1,
        "combined models, alike but for their seeds; specialists start from each of them, and the "
        "student learns from all",
        1,
        100,
        seldom=True,
    )
    grouping: SearchConfig = SearchConfig()
    align_to: str = COMBINED
    targets: TargetsConfig = TargetsConfig()
    small_verticals: str = setting(
        JOIN,
        "what becomes of verticals with fewer than two items to train on: "
        + "; ".join(f"{name}, {what}" for name, what in SMALL_VERTICALS.items()),
        choices=SMALL_VERTICALS,
        seldom=True,
    )
    single_specialists: bool = setting(
        True,
        "train one specialist per vertical, to teach and to compare with, whatever the groups",
        seldom=True,
    )
    specialists_start_from_combined: bool = True
    start_from_combined: bool = True
    split: str = setting(
        "test", "split to evaluate on", choices=("val", "test"), group="Evaluation and report"
    )
    processes: int = 1
    measure_speed: bool = setting(
        True,
        "measure images per second for the report, and steps for --dry_run; without, a report is "
        "the same for the same inputs",
        group="Evaluation and report",
    )
    export: ExportConfig = ExportConfig()
    of_stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    redo_from: tuple[str, ...] = setting(
        (),
        "stages to make anew, with all that was made from them; the old ones are kept in "
        "<run_dir>/replaced/<number>",
    )
