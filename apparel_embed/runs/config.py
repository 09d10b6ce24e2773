"""Configurations of pipelines, sweeps and compression measurements."""

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
    "none": "no rotation",
    "frozen": "principal components of the features of the backbone with its initial weights",
}
"""Names and descriptions of the spaces that the teachers' can be rotated onto."""


@dataclasses.dataclass(frozen=True)
class GrowthConfig:
    """The runs that a run grows from and is compared with."""

    grow_from: Path | None = setting(
        None,
        "directory of a finished run whose student learns additional verticals; teachers are "
        "trained only for those",
    )
    replay: float = setting(
        1.0,
        "share of the training images of --grow_from that its student learns from again, at least "
        "one per vertical",
        0.0,
        1.0,
        rare=True,
    )
    growth_compare_to: Path | None = setting(
        None,
        "directory of a run that trained everything from scratch, to compare a student trained "
        "with --grow_from or --align_to with",
        rare=True,
    )


PER_VERTICAL, PER_MODEL = "per_vertical", "per_model"
"""Whether a model's steps in a sweep are proportional to its verticals or constant."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Settings of the whole pipeline.

    Attributes:
      run_dir: directory of the run, for all output.
      synthetic: garments to draw and prepare, or None if `prepare` names a manifest.
      prepare: how to prepare; its output is a directory of the run.
      specialist: how the specialist of one vertical is trained. That of a group is trained in the
        same way, for as many steps as its verticals' specialists together.
      student: how the student is trained.
      detector: how a detector of the garments in photographs is trained, or None for no detector.
      grouping: how verticals are grouped.
      align_to: the space that targets are rotated onto: one of `REFERENCES`, or the directory of
        an earlier run, whose student then also teaches its verticals.
      targets: how targets are computed.
      growth: the earlier run that this one grows from, if any.
      specialists_start_from_combined: whether specialists start from the combined model's weights,
        or else from those that their configuration names.
      start_from_combined: whether the student does. None: it does unless its configuration names an
        earlier run, or `align_to` names one whose student has the same architecture; then it
        starts from that run's student.
      processes: number of processes that work on images.
      export: how the SavedModel is exported.
      of_stages: the stages' own configurations by the name of their kind, see `StageKind.config`;
        missing ones have the defaults.
    """

    run_dir: Path
    synthetic: SyntheticConfig | None
    prepare: PrepareConfig
    specialist: SpecialistConfig
    student: StudentConfig
    detector: DetectorTraining | None = None
    photograph_side: int = setting(
        PHOTOGRAPH_SIDE,
        "longest side in pixels of the whole photographs that a detector is trained and measured "
        "on; for the measurement, garments are cropped from them",
        64,
        8192,
        rare=True,
    )
    combined_steps: int = setting(
        450,
        "training steps of the combined model per vertical, before other models start from it",
        1,
    )
    combined_learning_rate: float | None = setting(
        None,
        "peak learning rate of the combined model; by default that of specialists",
        0.0,
        10.0,
        rare=True,
    )
    combined_seeds: int = setting(
        1,
        "number of combined models, which differ only in their seeds; specialists start from each "
        "of them, and the student learns from all",
        1,
        100,
        rare=True,
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
        rare=True,
    )
    single_specialists: bool = setting(
        True,
        "train one specialist per vertical, as a teacher and for comparison, for any grouping",
        rare=True,
    )
    specialists_start_from_combined: bool = True
    start_from_combined: bool | None = None
    split: str = setting(
        "test", "split to evaluate on", choices=("val", "test"), group="Evaluation and report"
    )
    processes: int = 1
    measure_speed: bool = setting(
        True,
        "measure images per second for the report, and step times for --dry_run; without it, the "
        "same inputs give the same report",
        group="Evaluation and report",
    )
    export: ExportConfig = ExportConfig()
    of_stages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    redo_from: tuple[str, ...] = setting(
        (),
        "stages to redo, together with all stages that depend on them; the old ones are moved to "
        "<run_dir>/replaced/<number>",
    )


@dataclasses.dataclass(frozen=True)
class CompressionConfig:
    """The kinds of compressed models and embeddings to measure."""

    tflite: tuple[str, ...] = setting(
        ("float16", "int8"),
        f"comma-separated kinds of TFLite models, from {', '.join(TFLITE_KINDS)}; may be empty",
    )
    embeddings: tuple[str, ...] = setting(
        ("float16", "int8", "pq", "binary"),
        f"comma-separated kinds of embeddings, from {', '.join(COMPRESSORS)}; may be empty",
        flag="embedding_kinds",
    )
    pq_bytes: int = setting(
        8, "bytes of a product-quantised embedding; must divide its dimensions", 1, 4096
    )
    representative_images: int = setting(
        200, "training images that calibrate the value ranges of int8 models", 1
    )
    split: str = same_as(PipelineConfig, "split")
    seed: int = seed_setting("the bootstrap and of codewords")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """The experiments behind a sweep's curve.

    Attributes:
      sizes: largest numbers of verticals that share a model, each 1 or more; capped at the
        dataset's number. Groups are as equal as possible: size 4 splits 6 verticals into two groups
        of 3. Sizes that lead to equally many groups are the same experiment, which is run once.
      seeds: seeds of the trainings; all models are trained with each.
      steps: "per_vertical": a model's steps are proportional to its verticals, so that every image
        is seen equally often; "per_model": all triplet models have the steps of one vertical's
        specialist, and all students those of the student of all verticals.
      unlabelled: whether students also learn from images of split unlabelled, as in
        `TargetsConfig`; triplet models see none.
      split: split to evaluate on.

    Raises:
      UserError: a value is out of range.
    """

    sizes: tuple[int, ...] = setting(
        (1, 2, 4, 8),
        "largest numbers of verticals that share a model; groups are as equal as possible, and "
        "sizes that lead to equally many groups are run once",
        1,
        1000,
    )
    partitions: int = setting(
        2,
        "distinct random partitions of the verticals for each size, or all of them if there are "
        "fewer",
        1,
    )
    seeds: tuple[int, ...] = setting(
        (0,), "seeds of the trainings; --seed is not used", 0, LARGEST_SEED
    )
    steps: str = setting(
        PER_VERTICAL,
        "per_vertical: a model's steps are proportional to its verticals, with --student_steps for "
        "a student of all; per_model: every triplet model has --specialist_steps, every student "
        "--student_steps",
        choices=(PER_VERTICAL, PER_MODEL),
        flag="sweep_steps",
    )
    unified: bool = setting(True, "also train a student of the specialists of each group")
    unlabelled: bool = same_as(TargetsConfig, "unlabelled")
    split: str = same_as(PipelineConfig, "split")

    def __post_init__(self) -> None:
        for name in ("sizes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name}: expected one or more distinct values, got {values}")
        if min(self.sizes) < 1 or min(self.seeds) < 0 or self.partitions < 1:
            raise UserError(
                "expected sizes and partitions of 1 or more and seeds of 0 or more, got sizes "
                f"{self.sizes}, partitions {self.partitions} and seeds {self.seeds}"
            )
        if self.steps not in (PER_VERTICAL, PER_MODEL):
            raise UserError(f"steps: expected {PER_VERTICAL} or {PER_MODEL}, got {self.steps!r}")


@dataclasses.dataclass(frozen=True)
class VerticalHeadConfig:
    """Whether to train a vertical head."""

    vertical_head: bool = setting(
        False,
        "train a classifier of verticals on the finished student's features, export it with the "
        "model and evaluate searches that it routes; the embedding does not change (evaluate uses "
        "the run's classifier if it exists)",
        group="Served model",
    )
