"""The curve of the sweet spot: accuracy against the number of verticals that share a model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import write_json
from apparel_embed.common.settings import LARGEST_SEED, same_as, setting
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.distillation.targets import TargetsConfig
from apparel_embed.evaluation.bootstrap import stratified_bootstrap_interval
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.models import embed_by_specialists
from apparel_embed.evaluation.protocol import answered_queries, query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.grouping.strategies import Groups, format_groups
from apparel_embed.grouping.trials import Group
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.report.hparams import write_sessions
from apparel_embed.report.sweep import CURVE_FILE, SWEEP_FILE, draw_curve
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.previous import previous_input, previous_stage
from apparel_embed.runs.stages.group_sessions import sweep_sessions
from apparel_embed.runs.stages.student import settled_student, student_stage, targets_stage
from apparel_embed.runs.stages.training import COMBINED, SWEEP, made_of, specialist_stage
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import REAL, StageAccess
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

TRIPLET, UNIFIED = "triplet", "unified"
SCHEMA_VERSION = 1
PER_VERTICAL, PER_MODEL = "per_vertical", "per_model"
# Flags that say which models are measured on what: a sweep with others is made of models it keeps.
_RENEWABLE = ("partitions", "seeds", "sizes", "split")
# For each partition wanted. If all there are are wanted, one is missed with probability e^-100.
_MOST_DRAWS = 100


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What the curve is made of.

    Attributes:
      sizes: most verticals that share a model, each 1 or more; those beyond the dataset's are the
        dataset's. Groups are as equal as can be: of 6 verticals, size 4 makes two groups of 3.
        Sizes that make as many groups are the same experiment, which is done once.
      seeds: of the trainings; each trains everything.
      steps: "per_vertical", a model's steps grow with its verticals, so that every picture is seen
        as often; "per_model", all triplet models have the steps of one vertical's specialist, and
        all students those of the student of all verticals.
      unlabelled: whether students learn from pictures of split unlabelled too, as in
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
    split: str = setting("test", "split to evaluate on", choices=("val", "test"))

    def __post_init__(self) -> None:
        for name in ("sizes", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} are {values}; at least one is needed, each once")
        if min(self.sizes) < 1 or min(self.seeds) < 0 or self.partitions < 1:
            raise UserError(
                f"sizes {self.sizes}, seeds {self.seeds}, partitions {self.partitions}; allowed "
                "are sizes and partitions of 1 or more, seeds of 0 or more"
            )
        if self.steps not in (PER_VERTICAL, PER_MODEL):
            raise UserError(f"steps {self.steps!r}; allowed are {PER_VERTICAL}, {PER_MODEL}")


def partitions_of(verticals: Sequence[str], size: int, count: int, seed: int) -> list[Groups]:
    """Returns different random partitions of the verticals into groups of about a size.

    Every partition has all verticals, so that sizes are compared on the same queries.

    Args:
      verticals: names.
      size: most verticals in a group; groups are as equal as they can be.
      count: partitions to draw; all there are if there are fewer, one only if all verticals are
        alone or together.
      seed: of the draw.
    """
    number_of_groups = _number_of_groups(len(verticals), size)
    count = min(count, _number_of_partitions(len(verticals), number_of_groups))
    # In the order drawn.
    partitions: dict[Groups, None] = {}
    for number in range(_MOST_DRAWS * count):
        order = np.random.default_rng([seed, size, number]).permutation(len(verticals))
        parts = np.array_split(order, number_of_groups)
        groups = [tuple(sorted(verticals[place] for place in part)) for part in parts]
        partitions[tuple(sorted(groups))] = None
        if len(partitions) == count:
            break
    return list(partitions)


def _number_of_groups(verticals: int, size: int) -> int:
    """Returns how many groups verticals make if no group has more than a size."""
    return -(-verticals // size)


def _number_of_partitions(verticals: int, groups: int) -> int:
    """Returns in how many ways verticals can be parted into groups that are as equal as can be."""
    small, larger = divmod(verticals, groups)
    orders = math.factorial(small) ** (groups - larger) * math.factorial(small + 1) ** larger
    return math.factorial(verticals) // (
        orders * math.factorial(groups - larger) * math.factorial(larger)
    )


def sweep_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    sweep: SweepConfig,
    training: SpecialistConfig,
    student: StudentConfig,
    access: StageAccess = REAL,
) -> Stage:
    """Trains models of groups of each size, and writes `sweep.json` and the curve as a figure.

    Each repeat is in `<stage>/tensorboard`, too, for its HParams tab.

    Models are stages in `<run>/sweep-models/seed<seed>/`, trained once; those that the run itself
    has trained alike, with the same seed, are copied. A sweep of other sizes, partitions, seeds or
    another split is made anew, and trains only the models that are not there.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      sweep: what to train.
      training: how the specialist of one vertical is trained; its seed is the sweep's.
      student: how the student of all verticals is trained; that of a group has its share of steps
        where steps are "per_vertical".
      access: how the sweep's stage is made.

    Raises:
      UserError: before anything is trained, if the split answers no query; if a stage was made with
        other flags.
    """
    if not answered_queries(evaluation_set(dataset, sweep.split)):
        raise UserError(
            f"{dataset.directory}: split {sweep.split} answers no query, so that no model can be "
            "measured; hold items back for it, or name another (--split)"
        )
    flags, inputs = made_of(training, dataset)
    student_flags, _ = made_of(student, dataset)
    if training.init_from:
        # Students start from the triplet model of their verticals, and those from what they find.
        start = previous_stage(training.init_from, (COMBINED,), training.model, run_dir)
        inputs.update(previous_input(start))

    def work(directory: Path) -> dict[str, Any]:
        record = run_sweep(run_dir, dataset, sweep, training, student)
        write_json(directory / SWEEP_FILE, record)
        (directory / CURVE_FILE).write_bytes(draw_curve(record))
        repeats = {row["size"]: _repeats(dataset, sweep, row["size"]) for row in record["rows"]}
        sessions = sweep_sessions(record, repeats, {TRIPLET: training, UNIFIED: student})
        write_sessions(directory / "tensorboard", sessions)
        return {"rows": record["rows"]}

    settings = dataclasses.asdict(sweep)
    if not sweep.unified or not len(dataset.select(split=UNLABELLED)):
        del settings["unlabelled"]
    stage_flags = {
        **{name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
        "specialist": flags,
        "student": student_flags if sweep.unified else None,
    }
    return access.make(
        run_dir / SWEEP,
        flags=stage_flags,
        inputs=inputs,
        work=report_corrupt_records(dataset, work),
        renewed=_RENEWABLE,
        together=True,
    )


def run_sweep(
    run_dir: Path,
    dataset: PreparedDataset,
    sweep: SweepConfig,
    training: SpecialistConfig,
    student: StudentConfig,
) -> dict[str, Any]:
    """Returns the content of `sweep.json`; its arguments are those of `sweep_stage`."""
    total = len(dataset.verticals)
    rows = []
    for size in _different_sizes(sweep.sizes, total):
        found: dict[str, list[_Found]] = {TRIPLET: [], UNIFIED: []}
        for seed in sweep.seeds:
            models = _Models(run_dir, dataset, sweep, training, student, seed, REAL)
            for groups in partitions_of(dataset.verticals, size, sweep.partitions, seed):
                logging.info("sweep: size %d, seed %d: %s", size, seed, format_groups(groups))
                found[TRIPLET].append(models.evaluated(groups, models.triplet))
                if sweep.unified and size > 1:
                    found[UNIFIED].append(models.evaluated(groups, models.unified))
        group_size = total / _number_of_groups(total, size)
        rows += [
            _row(name, size, group_size, repeats) for name, repeats in found.items() if repeats
        ]
    return {
        "schema_version": SCHEMA_VERSION,
        "split": sweep.split,
        "seeds": list(sweep.seeds),
        "steps": sweep.steps,
        "verticals": total,
        "rows": rows,
    }


def _repeats(dataset: PreparedDataset, sweep: SweepConfig, size: int) -> list[tuple[int, str]]:
    """Returns seed and groups of each repeat of a size, in the order in which they are made."""
    return [
        (seed, format_groups(groups))
        for seed in sweep.seeds
        for groups in partitions_of(dataset.verticals, size, sweep.partitions, seed)
    ]


def plan_sweep(
    run_dir: Path,
    dataset: PreparedDataset,
    sweep: SweepConfig,
    training: SpecialistConfig,
    student: StudentConfig,
) -> StagePlan:
    """Tells what `sweep_stage` would do, and writes nothing; its errors are that one's."""
    plan = StagePlan(run_dir).of(dataset)
    if sweep_stage(run_dir, dataset, sweep, training, student, plan.access).skipped:
        return plan
    for size in _different_sizes(sweep.sizes, len(dataset.verticals)):
        for seed in sweep.seeds:
            models = _Models(run_dir, dataset, sweep, training, student, seed, plan.access)
            for groups in partitions_of(dataset.verticals, size, sweep.partitions, seed):
                for group in groups:
                    models.triplet(group)
                    if sweep.unified and size > 1:
                        models.unified(group)
    return plan


def _different_sizes(sizes: Sequence[int], verticals: int) -> list[int]:
    """Returns the sizes, rising, and of those that make as many groups the least."""
    different: dict[int, int] = {}
    for size in sorted(sizes):
        groups = _number_of_groups(verticals, size)
        if groups in different:
            logging.info(
                "sweep: size %d makes as many groups of %d verticals as size %d, which is taken",
                size,
                verticals,
                different[groups],
            )
        else:
            different[groups] = min(size, verticals)
    return list(different.values())


_Config = TypeVar("_Config", SpecialistConfig, StudentConfig)
# What the models of one partition find: metrics of each vertical's queries.
_Found = dict[str, QueryMetrics]


class _Models:
    """Trains and evaluates the models of one seed."""

    def __init__(
        self,
        run_dir: Path,
        dataset: PreparedDataset,
        sweep: SweepConfig,
        training: SpecialistConfig,
        student: StudentConfig,
        seed: int,
        access: StageAccess,
    ) -> None:
        self._access = access
        self._own_dir, self._run_dir = run_dir, run_dir / "sweep-models" / f"seed{seed}"
        self._dataset, self._sweep = dataset, sweep
        self._training = _seeded(training, seed)
        self._student = settled_student(dataset, _seeded(student, seed), sweep.unlabelled)
        self._pictures = evaluation_set(dataset, sweep.split)

    def triplet(self, group: Group) -> Stage:
        """Returns the triplet model of a group."""
        count = len(group) if self._sweep.steps == PER_VERTICAL else 1
        return specialist_stage(
            self._run_dir,
            self._dataset,
            group,
            self._training.for_verticals(count),
            twins_in=[self._own_dir],
            access=self._access,
        )

    def unified(self, group: Group) -> Stage:
        """Returns the student of a group, aligned to its triplet model and started from it."""
        reference = self.triplet(group)
        run_dir = self._run_dir / reference.name.replace("specialist", "unified", 1)
        teachers = [self.triplet((vertical,)) for vertical in group]
        made = TargetsConfig(
            dim=self._student.model.embedding_dim, unlabelled=self._sweep.unlabelled
        )
        targets = targets_stage(
            run_dir, self._dataset, teachers, reference, made, access=self._access
        )
        total = len(self._dataset.verticals)
        count = len(group) if self._sweep.steps == PER_VERTICAL else total
        config = self._student.for_verticals(count, total)
        return student_stage(
            run_dir, self._dataset, targets, config, reference, access=self._access
        )

    def evaluated(self, groups: Groups, model_of: Callable[[Group], Stage]) -> _Found:
        """Returns what the models of all groups find, each within its verticals."""
        directories = {group: model_of(group).directory / "model" for group in groups}
        model = embed_by_specialists(self._dataset, self._pictures, directories)
        return query_outcomes(model.embeddings, self._pictures).answered()


def _seeded(config: _Config, seed: int) -> _Config:
    optimization = dataclasses.replace(config.optimization, seed=seed)
    return dataclasses.replace(config, optimization=optimization)


def _row(model: str, size: int, group_size: float, repeats: Sequence[_Found]) -> dict[str, Any]:
    """Returns the mean over repeats, with its interval over items, and the mean of each repeat."""
    verticals = sorted(repeats[0])
    hits = {v: np.mean([found[v].recall[1] for found in repeats], axis=0) for v in verticals}
    low, high = stratified_bootstrap_interval(
        np.concatenate([hits[v] for v in verticals]),
        np.concatenate([repeats[0][v].items for v in verticals]),
        np.repeat(verticals, [len(hits[v]) for v in verticals]),
    )
    return {
        "model": model,
        "size": size,
        "group_size": group_size,
        "queries": sum(len(values) for values in hits.values()),
        "r_at_1": float(np.mean([hits[v].mean() for v in verticals])),
        "r_at_1_low": low,
        "r_at_1_high": high,
        "repeats": [
            float(np.mean([found[v].recall[1].mean() for v in verticals])) for found in repeats
        ],
    }
