"""The search as a stage of the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from apparel_embed.common.files import write_json
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.grouping.search import SearchConfig, search_groups
from apparel_embed.grouping.strategies import Groups, groups_without_search
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.report.hparams import write_sessions
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.previous import previous_stage
from apparel_embed.runs.stages.group_sessions import trial_sessions
from apparel_embed.runs.stages.group_training import StageTrainer
from apparel_embed.runs.stages.training import (
    COMBINED,
    made_of,
    specialist_stage,
    start_flag,
    start_input,
)
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import REAL, StageAccess
from apparel_embed.training.specialist import SpecialistConfig

GROUPS_FILE = "groups.json"


def grouping_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    search: SearchConfig,
    training: SpecialistConfig,
    start: Stage | None = None,
    access: StageAccess = REAL,
) -> Stage:
    """Finds the groups; `<stage>/groups.json` tells them with every trial and its evidence.

    Trials are in `<stage>/tensorboard`, too, for its HParams tab.

    The trials are stages of their own, `specialist-<verticals>`: another search of the same run
    finds them finished, and so does whatever trains the groups' specialists. A search with another
    rule or budget takes this one's place: it decides anew, and trains what is missing.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      search: how to find them.
      training: how the specialist of one vertical is trained.
      start: the stage of this run with the model that trials start from, or None.
      access: how stages are made.

    Returns:
      The stage, whose result holds `groups`, lists of verticals, and `complete`.

    Raises:
      UserError: if groups given do not fit the dataset, or differ from those given before, or the
        stage or a trial was made by another way of training.
    """
    flags, inputs = made_of(training, dataset)
    previous = None
    if training.init_from and not start:
        # Of what trials start from, the one model that every run has.
        previous = previous_stage(training.init_from, (COMBINED,), training.model, run_dir)

    def work(directory: Path) -> dict[str, Any]:
        found = search_groups(StageTrainer(run_dir, dataset, training, start), search)
        write_json(directory / GROUPS_FILE, found.record)
        write_sessions(directory / "tensorboard", trial_sessions(found.record, training))
        return {"groups": found.record["groups"], "complete": found.complete}

    return access.make(
        run_dir / f"grouping-{search.strategy.name}",
        flags={
            "groups": [list(group) for group in search.strategy.given],
            "affinity_threshold": search.strategy.affinity_threshold,
            "rule": dataclasses.asdict(search.rule),
            "budget": dataclasses.asdict(search.budget),
            **start_flag(start, previous),
            **flags,
        },
        inputs={**inputs, **start_input(start, previous)},
        work=report_corrupt_records(dataset, work),
        renewed=("rule", "budget", "affinity_threshold"),
        together=True,
    )


def plan_grouping(
    plan: StagePlan,
    run_dir: Path,
    dataset: PreparedDataset,
    search: SearchConfig,
    training: SpecialistConfig,
    start: Stage | None = None,
) -> Groups:
    """Plans the search; returns its groups, or each vertical alone where it is to find them."""
    stage = grouping_stage(run_dir, dataset, search, training, start, plan.access)
    if stage.result:
        return tuple(tuple(group) for group in stage.result["groups"])
    groups = groups_without_search(search.strategy, dataset.verticals)
    if groups is not None:
        return groups
    for vertical in dataset.verticals:
        specialist_stage(run_dir, dataset, [vertical], training, start=start, access=plan.access)
    plan.doubt(
        f"Which groups there will be, --grouping={search.strategy.name} finds out by training "
        "groups, too; here every vertical is alone."
    )
    return tuple((vertical,) for vertical in dataset.verticals)
