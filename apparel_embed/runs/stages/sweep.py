"""The stage of the sweep: accuracy against the number of verticals that share a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import write_json
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.distillation.config import TargetsConfig
from apparel_embed.evaluation.models import embed_by_specialists
from apparel_embed.evaluation.protocol import (
    Outcomes,
    answered_queries,
    query_outcomes,
    summary_rows,
)
from apparel_embed.evaluation.several_runs import mean_recall, pool_runs
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.grouping.strategies import Groups, format_groups
from apparel_embed.grouping.trials import Group
from apparel_embed.report.hparams import R_AT_1, Session, write_sessions
from apparel_embed.report.sweep import CURVE_FILE, SWEEP_FILE, draw_curve
from apparel_embed.runs.config import PER_VERTICAL, SweepConfig
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.runs.stages.start import find_start, weights_input
from apparel_embed.runs.stages.student import settled_student, student_stage
from apparel_embed.runs.stages.targets import targets_stage
from apparel_embed.runs.stages.training import hparams_of, training_flags
from apparel_embed.store.names import COMBINED, SPECIALIST, SWEEP
from apparel_embed.store.record import Stage
from apparel_embed.training.config import SpecialistConfig, StudentConfig

TRIPLET, UNIFIED = "triplet", "unified"
SCHEMA_VERSION = 1
# Flags that select models and the split; a sweep with other values reuses the trained models.
_OVERWRITABLE = ("partitions", "seeds", "sizes", "split")
# Draws per partition found, plus as many for the first. If all are wanted, the probability of
# missing one is about e^-100.
_MOST_DRAWS = 100


def partitions_of(verticals: Sequence[str], size: int, count: int, seed: int) -> list[Groups]:
    """Returns distinct random partitions of the verticals into groups of about a given size.

    Every partition has all verticals, so that sizes are compared on the same queries.

    Args:
      verticals: names.
      size: largest number of verticals in a group; groups are as equal as possible.
      count: partitions to draw; if fewer exist, all of them are returned. There is only one if all
        verticals are alone or together.
      seed: seed of the draw.
    """
    # Keys in the order drawn.
    partitions: dict[Groups, None] = {}
    number = 0
    while len(partitions) < count and number < _MOST_DRAWS * (len(partitions) + 1):
        order = np.random.default_rng([seed, size, number]).permutation(len(verticals))
        parts = np.array_split(order, _number_of_groups(len(verticals), size))
        groups = [tuple(sorted(verticals[place] for place in part)) for part in parts]
        partitions[tuple(sorted(groups))] = None
        number += 1
    return list(partitions)


def _number_of_groups(verticals: int, size: int) -> int:
    """Returns the smallest number of groups of at most `size` verticals."""
    return -(-verticals // size)


def sweep_stage(
    run: Run, sweep: SweepConfig, training: SpecialistConfig, student: StudentConfig
) -> Stage:
    """Trains models of groups of each size, and writes `sweep.json` and the curve as a figure.

    Models are stages in `<run>/sweep-models/seed<seed>/`, trained once; the run's own models with
    the same settings and seed are copied. A sweep with other sizes, partitions, seeds or another
    split overwrites this one. Repeats are also sessions in `<stage>/tensorboard`.

    Args:
      run: the run.
      sweep: the models to train.
      training: how the specialist of one vertical is trained; its seed is replaced by the sweep's.
      student: how the student of all verticals is trained; that of a group has its share of steps
        if steps are "per_vertical".

    Raises:
      UserError: the split has no query with a match (raised before any training), or a stage was
        made with other flags.
    """
    dataset = run.dataset
    if not answered_queries(evaluation_set(dataset, sweep.split)):
        raise UserError(
            f"{dataset.directory}: split {sweep.split} has no query with a match, so models cannot "
            "be measured; hold out items for it, or choose another split (--split)"
        )
    # Students start from the triplet model of their verticals; only that may use an earlier run.
    start = find_start(None, training, (COMBINED,), run.directory)

    def work(directory: Path) -> dict[str, Any]:
        repeats = list(_repeats(dataset.verticals, sweep))
        record = _run_sweep(_models_by_seed(run, sweep, training, student), sweep, repeats)
        write_json(directory / SWEEP_FILE, record)
        (directory / CURVE_FILE).write_bytes(draw_curve(record))
        sessions = sweep_sessions(record, repeats, {TRIPLET: training, UNIFIED: student})
        write_sessions(directory / "tensorboard", sessions)
        return {"rows": record["rows"]}

    # The flag has no effect if no student is trained on unlabelled images.
    unlabelled = sweep.unified and sweep.unlabelled and len(dataset.select(split=UNLABELLED)) > 0
    settings = dataclasses.asdict(dataclasses.replace(sweep, unlabelled=unlabelled))
    stage = run.make(
        SWEEP,
        work,
        flags={
            **{name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
            "specialist": training_flags(training),
            "student": training_flags(student) if sweep.unified else None,
        },
        inputs={**weights_input(training.init_weights), **start.inputs},
        overwrite=_OVERWRITABLE,
        on_all_workers=True,
    )
    if not stage.result:
        _plan_models(_models_by_seed(run, sweep, training, student), run, sweep)
    return stage


def _plan_models(models: Mapping[int, _Models], run: Run, sweep: SweepConfig) -> None:
    """Plans the models of a planned sweep."""
    for size, seed, groups in _repeats(run.dataset.verticals, sweep):
        for make in models[seed].kinds(size).values():
            for group in groups:
                make(group)


def sweep_sessions(
    record: Mapping[str, Any],
    repeats: Sequence[tuple[int, int, Groups]],
    trainings: Mapping[str, SpecialistConfig | StudentConfig],
) -> list[Session]:
    """Returns a session of TensorBoard's HParams tab for each repeat of each model and size.

    Args:
      record: the content of `sweep.json`.
      repeats: size, seed and groups of each repeat, in order.
      trainings: how each model is trained, except for the seed.

    Returns:
      Sessions with R@1 within, as the mean over all verticals.
    """
    sessions = []
    for row in record["rows"]:
        made = [(seed, groups) for size, seed, groups in repeats if size == row["size"]]
        for number, (value, (seed, groups)) in enumerate(zip(row["repeats"], made)):
            hparams = {
                "kind": "sweep",
                "model": row["model"],
                "verticals": format_groups(groups),
                "group_size": row["group_size"],
                **hparams_of(trainings[row["model"]]),
                "seed": seed,
            }
            name = f"{row['model']}-size{row['size']}-{number:02d}"
            sessions.append(Session(name, hparams, {R_AT_1: value}))
    return sessions


def _run_sweep(
    models: Mapping[int, _Models], sweep: SweepConfig, repeats: Sequence[tuple[int, int, Groups]]
) -> dict[str, Any]:
    """Returns the content of `sweep.json`."""
    total = sum(len(group) for group in repeats[0][2])
    found: dict[tuple[int, str], list[Outcomes]] = {}
    for size, seed, groups in repeats:
        logging.info("sweep: size %d, seed %d: %s", size, seed, format_groups(groups))
        for name, model_of in models[seed].kinds(size).items():
            found.setdefault((size, name), []).append(models[seed].evaluated(groups, model_of))
    return {
        "schema_version": SCHEMA_VERSION,
        "split": sweep.split,
        "seeds": list(sweep.seeds),
        "steps": sweep.steps,
        "verticals": len(next(iter(found.values()))[0].counted()),
        "rows": [
            _row(name, size, total / _number_of_groups(total, size), of_size)
            for (size, name), of_size in found.items()
        ],
    }


def _repeats(verticals: Sequence[str], sweep: SweepConfig) -> Iterator[tuple[int, int, Groups]]:
    """Yields size, seed and groups of every repeat, in order.

    Among sizes that lead to equally many groups, the smallest is used.
    """
    different: dict[int, int] = {}
    for size in sorted(sweep.sizes):
        taken = different.setdefault(_number_of_groups(len(verticals), size), size)
        if taken != size:
            logging.info(
                "sweep: size %d splits %d verticals into as many groups as size %d, which is used",
                size,
                len(verticals),
                min(taken, len(verticals)),
            )
    for size in different.values():
        size = min(size, len(verticals))
        for seed in sweep.seeds:
            for groups in partitions_of(verticals, size, sweep.partitions, seed):
                yield size, seed, groups


_Config = TypeVar("_Config", SpecialistConfig, StudentConfig)


class _Models:
    """Trains and evaluates the models of one seed."""

    def __init__(
        self,
        run: Run,
        sweep: SweepConfig,
        training: SpecialistConfig,
        student: StudentConfig,
        seed: int,
    ) -> None:
        self._own_dir, self._sweep = run.directory, sweep
        self._run = dataclasses.replace(run, directory=run.directory / f"sweep-models/seed{seed}")
        self._training = _seeded(training, seed)
        self._student = settled_student(run, _seeded(student, seed), sweep.unlabelled)
        self._images = evaluation_set(run.dataset, sweep.split)

    def kinds(self, size: int) -> dict[str, Callable[[Group], Stage]]:
        """Returns the functions that train each kind of model for groups of a size."""
        unified = {UNIFIED: self.unified} if self._sweep.unified and size > 1 else {}
        return {TRIPLET: self.triplet, **unified}

    def triplet(self, group: Group) -> Stage:
        """Returns the triplet model of a group."""
        count = len(group) if self._sweep.steps == PER_VERTICAL else 1
        training = self._training.for_verticals(count)
        return specialist_stage(self._run, group, training, further_runs=[self._own_dir])

    def unified(self, group: Group) -> Stage:
        """Returns the student of a group, aligned to its triplet model and starting from it."""
        reference = self.triplet(group)
        name = reference.name.replace(SPECIALIST, "unified", 1)
        run = dataclasses.replace(self._run, directory=self._run.directory / name)
        teachers = [self.triplet((vertical,)) for vertical in group]
        dim = self._student.model.embedding_dim
        config = TargetsConfig(dim=dim, unlabelled=self._sweep.unlabelled)
        targets = targets_stage(run, teachers, reference, config)
        total = len(run.dataset.verticals)
        count = len(group) if self._sweep.steps == PER_VERTICAL else total
        return student_stage(run, targets, self._student.for_verticals(count, total), reference)

    def evaluated(self, groups: Groups, model_of: Callable[[Group], Stage]) -> Outcomes:
        """Returns the outcomes of the models of all groups, each within its verticals."""
        directories = {group: model_of(group).directory / "model" for group in groups}
        model = embed_by_specialists(self._run.dataset, self._images, directories)
        return query_outcomes(model.embeddings, self._images)


def _models_by_seed(
    run: Run, sweep: SweepConfig, training: SpecialistConfig, student: StudentConfig
) -> dict[int, _Models]:
    return {seed: _Models(run, sweep, training, student, seed) for seed in sweep.seeds}


def _seeded(config: _Config, seed: int) -> _Config:
    optimization = dataclasses.replace(config.optimization, seed=seed)
    return dataclasses.replace(config, optimization=optimization)


def _row(model: str, size: int, group_size: float, repeats: Sequence[Outcomes]) -> dict[str, Any]:
    """Returns R@1 over all repeats, with its interval over items, and R@1 of each repeat."""
    row = summary_rows(pool_runs(repeats, ["one"] * len(repeats)))[-1]
    return {
        "model": model,
        "size": size,
        "group_size": group_size,
        **{name: row[name] for name in ("queries", "r_at_1", "r_at_1_low", "r_at_1_high")},
        "repeats": [mean_recall(outcomes) for outcomes in repeats],
    }
