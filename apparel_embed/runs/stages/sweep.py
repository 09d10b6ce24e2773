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
from apparel_embed.evaluation.bootstrap import stratified_bootstrap_interval
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.models import embed_by_specialists
from apparel_embed.evaluation.protocol import answered_queries, query_outcomes
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
# Flags that say which models are measured on what: a sweep with others is made of models it keeps.
_OVERWRITABLE = ("partitions", "seeds", "sizes", "split")
# For each partition found, and one. If all there are are wanted, one is missed with probability
# e^-100.
_MOST_DRAWS = 100


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
    # In the order drawn.
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
    """Returns how many groups verticals make if no group has more than a size."""
    return -(-verticals // size)


def sweep_stage(
    run: Run, sweep: SweepConfig, training: SpecialistConfig, student: StudentConfig
) -> Stage:
    """Trains models of groups of each size, and writes `sweep.json` and the curve as a figure.

    Models are stages in `<run>/sweep-models/seed<seed>/`, trained once; those that the run itself
    has trained alike, with the same seed, are copied. A sweep of other sizes, partitions, seeds or
    another split overwrites this one. Repeats are sessions in `<stage>/tensorboard`, too.

    Args:
      run: the run.
      sweep: what to train.
      training: how the specialist of one vertical is trained; its seed is the sweep's.
      student: how the student of all verticals is trained; that of a group has its share of steps
        where steps are "per_vertical".

    Raises:
      UserError: before anything is trained, if the split answers no query; if a stage was made with
        other flags.
    """
    dataset = run.dataset
    if not answered_queries(evaluation_set(dataset, sweep.split)):
        raise UserError(
            f"{dataset.directory}: split {sweep.split} answers no query, so that no model can be "
            "measured; hold items back for it, or name another (--split)"
        )
    # Students start from the triplet model of their verticals, and those from what they find.
    start = find_start(None, training, (COMBINED,), run.directory)

    def work(directory: Path) -> dict[str, Any]:
        repeats = list(_repeats(dataset.verticals, sweep))
        record = _run_sweep(_models_by_seed(run, sweep, training, student), sweep, repeats)
        write_json(directory / SWEEP_FILE, record)
        (directory / CURVE_FILE).write_bytes(draw_curve(record))
        sessions = sweep_sessions(record, repeats, {TRIPLET: training, UNIFIED: student})
        write_sessions(directory / "tensorboard", sessions)
        return {"rows": record["rows"]}

    # Where no student is trained on unlabelled images the flag makes no difference.
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
    """Plans the models of a sweep that is planned itself."""
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
      repeats: size, seed and groups of each, in their order.
      trainings: how each model is trained, but for the seed.

    Returns:
      Sessions with R@1 within, the mean over all verticals.
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
    found: dict[tuple[int, str], list[_Found]] = {}
    for size, seed, groups in repeats:
        logging.info("sweep: size %d, seed %d: %s", size, seed, format_groups(groups))
        for name, model_of in models[seed].kinds(size).items():
            found.setdefault((size, name), []).append(models[seed].evaluated(groups, model_of))
    return {
        "schema_version": SCHEMA_VERSION,
        "split": sweep.split,
        "seeds": list(sweep.seeds),
        "steps": sweep.steps,
        "verticals": total,
        "rows": [
            _row(name, size, total / _number_of_groups(total, size), of_size)
            for (size, name), of_size in found.items()
        ],
    }


def _repeats(verticals: Sequence[str], sweep: SweepConfig) -> Iterator[tuple[int, int, Groups]]:
    """Yields size, seed and groups of every repeat, in the order in which they are made.

    Of sizes that make as many groups, the least is taken.
    """
    different: dict[int, int] = {}
    for size in sorted(sweep.sizes):
        taken = different.setdefault(_number_of_groups(len(verticals), size), size)
        if taken != size:
            logging.info(
                "sweep: size %d makes as many groups of %d verticals as size %d, which is taken",
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
# What the models of one partition find: metrics of each vertical's queries.
_Found = dict[str, QueryMetrics]


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
        """Returns what makes each kind of model that groups of a size have."""
        unified = {UNIFIED: self.unified} if self._sweep.unified and size > 1 else {}
        return {TRIPLET: self.triplet, **unified}

    def triplet(self, group: Group) -> Stage:
        """Returns the triplet model of a group."""
        count = len(group) if self._sweep.steps == PER_VERTICAL else 1
        training = self._training.for_verticals(count)
        return specialist_stage(self._run, group, training, further_runs=[self._own_dir])

    def unified(self, group: Group) -> Stage:
        """Returns the student of a group, aligned to its triplet model and started from it."""
        reference = self.triplet(group)
        name = reference.name.replace(SPECIALIST, "unified", 1)
        run = dataclasses.replace(self._run, directory=self._run.directory / name)
        teachers = [self.triplet((vertical,)) for vertical in group]
        dim = self._student.model.embedding_dim
        made = TargetsConfig(dim=dim, unlabelled=self._sweep.unlabelled)
        targets = targets_stage(run, teachers, reference, made)
        total = len(run.dataset.verticals)
        count = len(group) if self._sweep.steps == PER_VERTICAL else total
        return student_stage(run, targets, self._student.for_verticals(count, total), reference)

    def evaluated(self, groups: Groups, model_of: Callable[[Group], Stage]) -> _Found:
        """Returns what the models of all groups find, each within its verticals."""
        directories = {group: model_of(group).directory / "model" for group in groups}
        model = embed_by_specialists(self._run.dataset, self._images, directories)
        return query_outcomes(model.embeddings, self._images).answered()


def _models_by_seed(
    run: Run, sweep: SweepConfig, training: SpecialistConfig, student: StudentConfig
) -> dict[int, _Models]:
    return {seed: _Models(run, sweep, training, student, seed) for seed in sweep.seeds}


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
