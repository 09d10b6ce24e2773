"""What pipelines, sweeps and measurements of compression are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import LARGEST_SEED, same_as, seed_setting, setting
from apparel_embed.data.prepare_plan import PHOTOGRAPH_SIDE, PrepareConfig
from apparel_embed.data.synthetic.world import SyntheticConfig
from apparel_embed.distillation.config import TargetsConfig
from apparel_embed.evaluation.compression import COMPRESSORS
from apparel_embed.grouping.search import SearchConfig
from apparel_embed.serving.exported import TFLITE_KINDS, ExportConfig
from apparel_embed.store.names import COMBINED
from apparel_embed.training.config import DetectorTraining, SpecialistConfig, StudentConfig
from apparel_embed.training.readiness import JOIN, SMALL_VERTICALS

REFERENCES = {
    "combined": "the combined model that specialists start from",
    "none": "leaves them as they are",
    "frozen": "principal components of the features of the backbone with its initial weights",
}
"""What teachers' spaces can be rotated onto, by name, with what it is."""


@dataclasses.dataclass(frozen=True)
class GrowthConfig:
    """What a run continues from, and what it is compared with."""

    grow_from: Path | None = setting(
        None,
        "directory of a finished run whose student learns the verticals that are new to it; "
        "teachers are trained only for those",
    )
    replay: float = setting(
        1.0,
        "share of the training images of --grow_from that its student learns from again, at least "
        "one of each vertical",
        0.0,
        1.0,
        seldom=True,
    )
    growth_compare_to: Path | None = setting(
        None,
        "directory of a run that trained everything from the start, to compare a student of "
        "--grow_from or --align_to with",
        seldom=True,
    )


PER_VERTICAL, PER_MODEL = "per_vertical", "per_model"
"""How a model's steps grow with its verticals in a sweep."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Settings of the whole pipeline.

    Attributes:
      run_dir: where everything goes.
      synthetic: garments to draw and prepare, or None where `prepare` names a manifest.
      prepare: how to prepare; its output is a directory of the run.
      specialist: how the specialist of one vertical is trained. That of a group is trained alike,
        for as many steps as its verticals' specialists together.
      student: how the student is trained.
      detector: how a detector of the garments in photographs is trained, or None for none.
      grouping: how verticals are grouped.
      align_to: onto whose space targets are rotated, one of `REFERENCES`, or the directory of an
        earlier run, whose student then teaches its verticals, too.
      targets: how targets are made.
      growth: the earlier run that this one continues from, if any.
      specialists_start_from_combined: whether specialists start from the combined model's weights,
        else as their configuration says.
      start_from_combined: whether the student does, or None: it does unless its configuration
        names an earlier run, or `align_to` one whose student is built alike; then it starts there.
      processes: for work on images.
      export: how the SavedModel is exported.
      of_stages: by the names of kinds of stages, what they have of their own, see
        `StageKind.config`; the default of those that are not here.
    """

    run_dir: Path
    synthetic: SyntheticConfig | None
    prepare: PrepareConfig
    specialist: SpecialistConfig
    student: StudentConfig
    detector: DetectorTraining | None = None
    photograph_side: int = setting(
        PHOTOGRAPH_SIDE,
        "longest side in pixels of the whole photographs that a detector learns from and is "
        "measured on; its garments are cut out of these to be measured",
        64,
        8192,
        seldom=True,
    )
    combined_steps: int = setting(
        450,
        "training steps of the combined model for each vertical, before other models start from it",
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
        "combined models that differ only in their seeds; specialists start from each of them, and "
        "the student learns from all",
        1,
        100,
        seldom=True,
    )
    grouping: SearchConfig = SearchConfig()
    align_to: str = COMBINED
    targets: TargetsConfig = TargetsConfig()
    growth: GrowthConfig = GrowthConfig()
    small_verticals: str = setting(
        JOIN,
        "what to do with verticals that have fewer than two items to train on: "
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
    start_from_combined: bool | None = None
    split: str = setting(
        "test", "split to evaluate on", choices=("val", "test"), group="Evaluation and report"
    )
    processes: int = 1
    measure_speed: bool = setting(
        True,
        "measure images per second for the report, and steps for --dry_run; without it, the same "
        "inputs give the same report",
        group="Evaluation and report",
    )
    export: ExportConfig = ExportConfig()
    of_stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    redo_from: tuple[str, ...] = setting(
        (),
        "stages to make again, with everything made from them; the old ones are kept in "
        "<run_dir>/replaced/<number>",
    )


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """What to make smaller."""

    tflite: tuple[str, ...] = setting(
        ("float16", "int8"),
        f"comma-separated kinds of TFLite models, out of {', '.join(TFLITE_KINDS)}; or nothing",
    )
    embeddings: tuple[str, ...] = setting(
        ("float16", "int8", "pq", "binary"),
        f"comma-separated kinds of embeddings, out of {', '.join(COMPRESSORS)}; or nothing",
        flag="embedding_kinds",
    )
    pq_bytes: int = setting(
        8, "bytes of a product-quantised embedding; must divide its dimensions", 1, 4096
    )
    representative_images: int = setting(
        200, "training images by which int8 models find the ranges of values", 1
    )
    split: str = same_as(PipelineConfig, "split")
    seed: int = seed_setting("the bootstrap and of codewords")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What the curve is made of.

    Attributes:
      sizes: most verticals that share a model, each 1 or more; those beyond the dataset's are the
        dataset's. Groups are as equal as can be: of 6 verticals, size 4 makes two groups of 3.
        Sizes that make as many groups are the same experiment, which is done once.
      seeds: of the trainings; each trains everything.
      steps: "per_vertical", a model's steps grow with its verticals, so that every image is seen
        as often; "per_model", all triplet models have the steps of one vertical's specialist, and
        all students those of the student of all verticals.
      unlabelled: whether students learn from images of split unlabelled too, as in
        `TargetsConfig`; triplet models see none.
      split: to evaluate on.

    Raises:
      UserError: if a value is out of range.
    """

    sizes: tuple[int, ...] = setting(
        (1, 2, 4, 8),
        "most verticals that share a model; groups are as equal as can be, and sizes that make as "
        "many groups are one",
        1,
        1000,
    )
    partitions: int = setting(
        2,
        "different random partitions of the verticals at each size; where there are fewer, as at "
        "sizes one and all, each of them",
        1,
    )
    seeds: tuple[int, ...] = setting(
        (0,), "seeds of the trainings; --seed is not used", 0, LARGEST_SEED
    )
    steps: str = setting(
        PER_VERTICAL,
        "per_vertical: a model's steps grow with its verticals, to --student_steps for a student "
        "of all; per_model: every triplet model has --specialist_steps, every student "
        "--student_steps",
        choices=(PER_VERTICAL, PER_MODEL),
        flag="sweep_steps",
    )
    unified: bool = setting(True, "train a student of the specialists of each group, too")
    unlabelled: bool = same_as(TargetsConfig, "unlabelled")
    split: str = same_as(PipelineConfig, "split")

    def __post_init__(self) -> None:
        for name in ("sizes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} are {values}; at least one is needed, each once")
        if min(self.sizes) < 1 or min(self.seeds) < 0 or self.partitions < 1:
            raise UserError(
                f"sizes {self.sizes}, seeds {self.seeds}, partitions {self.partitions}; expected "
                "sizes and partitions of 1 or more, seeds of 0 or more"
            )
        if self.steps not in (PER_VERTICAL, PER_MODEL):
            raise UserError(f"steps {self.steps!r}; expected one of {PER_VERTICAL}, {PER_MODEL}")


@dataclasses.dataclass(frozen=True)
class VerticalHeadConfig:
    """Whether there is to be one."""

    vertical_head: bool = setting(
        False,
        "train a classifier of verticals on the finished student's features, export it with the "
        "model and evaluate searches that it routes; the embedding does not change (evaluate "
        "takes that of the run if there is one)",
        group="Served model",
    )
