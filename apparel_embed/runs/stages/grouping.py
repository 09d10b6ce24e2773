"""The stage that searches for groups of verticals; its trials are specialist stages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import write_json
from apparel_embed.evaluation.models import embed_by_frozen_backbone, embed_by_model
from apparel_embed.evaluation.protocol import Outcomes, answered_queries, query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.grouping.search import SearchConfig, search_groups
from apparel_embed.grouping.strategies import Groups, groups_without_search
from apparel_embed.grouping.trials import Group, Trial
from apparel_embed.report.hparams import R_AT_1, Session, write_sessions
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.specialist import specialist_stage, start_of_specialists
from apparel_embed.runs.stages.start import find_start, weights_input
from apparel_embed.runs.stages.training import hparams_of, names_of_flags, training_flags
from apparel_embed.store.names import COMBINED, GROUPING
from apparel_embed.store.record import Stage
from apparel_embed.training.config import SpecialistConfig

GROUPS_FILE = "groups.json"


def grouping_stage(
    run: Run, search: SearchConfig, training: SpecialistConfig, start: Stage | None = None
) -> Stage:
    """Finds the groups; writes them to `<stage>/groups.json` with every trial and its evidence.

    Trials are separate stages, `specialist-<verticals>`, and sessions in `<stage>/tensorboard`.
    A search with another rule or budget overwrites this one, and trains only missing models.

    Args:
      run: the run.
      search: how to search for groups.
      training: how the specialist of one vertical is trained.
      start: the stage of this run with the model that trials start from, or None.

    Returns:
      The stage, whose result contains `groups`, lists of verticals, and `complete`. In a plan of a
      search, every vertical is a group.

    Raises:
      UserError: the given groups do not fit the dataset or differ from those of the existing
        stage, or the stage or a trial was made with other training settings.
    """
    # Trials may start from several models of an earlier run; every run has the combined one.
    starts_from = find_start(start, training, (COMBINED,), run.directory)

    def work(directory: Path) -> dict[str, Any]:
        found = search_groups(StageTrainer(run, training, start), search)
        write_json(directory / GROUPS_FILE, found)
        write_sessions(directory / "tensorboard", trial_sessions(found, training))
        return {name: found[name] for name in ("groups", "complete")}

    stage = run.make(
        f"{GROUPING}-{search.strategy.name}",
        work,
        flags={
            "groups": [list(group) for group in search.strategy.given],
            "affinity_threshold": search.strategy.affinity_threshold,
            "rule": dataclasses.asdict(search.rule),
            "budget": dataclasses.asdict(search.budget),
            **starts_from.flag,
            **training_flags(training),
        },
        inputs={**weights_input(training.init_weights), **starts_from.inputs},
        flag_names=names_of_flags(training, "--specialist_steps"),
        overwrite=("rule", "budget", "affinity_threshold"),
        on_all_workers=True,
    )
    if stage.result:
        return stage
    groups = _planned_groups(run, search, training, start)
    return dataclasses.replace(stage, result={"groups": groups, "complete": False})


def _planned_groups(
    run: Run, search: SearchConfig, training: SpecialistConfig, start: Stage | None
) -> Groups:
    """Plans a search; returns its groups, or single verticals if they have yet to be found."""
    verticals = run.dataset.verticals
    groups = groups_without_search(search.strategy, verticals)
    if groups is not None:
        return groups
    for vertical in verticals:
        specialist_stage(run, [vertical], training, start=start)
    run.access.doubt(
        f"--grouping={search.strategy.name} also trains groups to find the best ones; this plan "
        "assumes that every vertical is its own group."
    )
    return tuple((vertical,) for vertical in verticals)


class StageTrainer:
    """Trains groups as stages `specialist-...` of a run, and validates them on split val.

    The specialist of a group is trained for as many steps as its verticals' specialists together.

    Args:
      run: the run.
      config: how the specialist of one vertical is trained.
      start: the stage with the model that all of them start from, or None.

    Raises:
      UserError: from `train`, before any training, if split val has no query with a match.
    """

    def __init__(self, run: Run, config: SpecialistConfig, start: Stage | None = None) -> None:
        self._run = run
        self._config = config
        self._start = start
        self._images = evaluation_set(run.dataset, "val")

    @property
    def verticals(self) -> Sequence[str]:
        """All verticals of the dataset."""
        return self._run.dataset.verticals

    def train(self, verticals: Group) -> Trial:
        """Returns the trial of a group, which is trained unless it is finished."""
        if not answered_queries(self._images):
            raise UserError(
                f"{self._run.dataset.directory}: split val has no query with a match, so groups "
                "cannot be compared; hold out items for it, or name the groups (--grouping=given)"
            )
        config = self._config.for_verticals(len(verticals))
        stage = specialist_stage(self._run, verticals, config, start=self._start)
        return Trial(
            verticals=verticals,
            stage=stage.name,
            outcomes=self._outcomes(stage),
            steps=config.optimization.steps,
            seconds=stage.result["trained_seconds"],
        )

    def untrained(self) -> Outcomes:
        """Returns the outcomes of the model that trials start from."""
        if self._start:
            return self._outcomes(self._start)
        config, records = self._config, self._images.records
        model = embed_by_frozen_backbone(
            self._run.dataset, records, config.model, config.init_weights, config.optimization.seed
        )
        return query_outcomes(model.embeddings, self._images)

    def _outcomes(self, stage: Stage) -> Outcomes:
        directory = stage.directory / "model"
        model = embed_by_model(self._run.dataset, self._images.records, directory)
        return query_outcomes(model.embeddings, self._images)


def trial_sessions(record: Mapping[str, Any], training: SpecialistConfig) -> list[Session]:
    """Returns a session of TensorBoard's HParams tab for each trial of a search.

    Args:
      record: the content of `groups.json`.
      training: how the specialist of one vertical is trained.

    Returns:
      Sessions with R@1 within on split val: of each of the group's verticals that have a query
      with a match, and their mean.
    """
    sessions = []
    for trial in record["trials"]:
        group = trial["verticals"]
        recalls = {name: trial["r_at_1"][name] for name in group if name in trial["r_at_1"]}
        metrics = {f"{R_AT_1}/{name}": recall for name, recall in recalls.items()}
        if recalls:
            metrics[R_AT_1] = float(np.mean(list(recalls.values())))
        hparams = {
            "kind": "grouping",
            "verticals": "+".join(group),
            "group_size": len(group),
            "steps": trial["steps"],
            **hparams_of(training),
        }
        sessions.append(Session(trial["stage"], hparams, metrics))
    return sessions


def make(pipeline: PipelineRun) -> list[Stage]:
    """Finds the groups and stores them in the pipeline."""
    config, start = pipeline.config, start_of_specialists(pipeline)
    stage = grouping_stage(pipeline.teaching, config.grouping, config.specialist, start)
    pipeline.groups = tuple(tuple(group) for group in stage.result["groups"])
    return [stage]
