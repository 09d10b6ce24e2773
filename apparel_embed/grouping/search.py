"""The search for groups of verticals that can share a specialist, for any strategy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import logging
from rich import box
from rich.table import Table

from apparel_embed.common.text import plain_text
from apparel_embed.grouping.decision import Bench, Rule
from apparel_embed.grouping.strategies import STRATEGIES, Groups, StrategyConfig, format_groups
from apparel_embed.grouping.trials import Budget, BudgetEnded, Trainer

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The settings of a search for groups.

    Attributes:
      strategy: which groups to try.
      rule: the rule of acceptance.
      budget: how much may be trained.
    """

    strategy: StrategyConfig = StrategyConfig()
    rule: Rule = Rule()
    budget: Budget = Budget()


def search_groups(trainer: Trainer, config: SearchConfig) -> dict[str, Any]:
    """Returns the groups that a strategy finds, with its trials and decisions.

    Args:
      trainer: trains and validates models.
      config: the settings of the search.

    Returns:
      The content of `groups.json`; `complete` says whether the strategy finished within the budget.

    Raises:
      UserError: if given groups do not match the dataset.
    """
    bench = Bench(trainer, config.rule, config.budget)
    groups: Groups = ()
    complete = True
    try:
        for better in STRATEGIES[config.strategy.name](bench, config.strategy):
            groups = better
    except BudgetEnded:
        complete = False
        logging.info("grouping: the budget is spent; using the best groups found so far")
    logging.info("grouping: %s", format_groups(groups))
    return _record(bench, config, groups, complete)


def _record(bench: Bench, config: SearchConfig, groups: Groups, complete: bool) -> dict[str, Any]:
    trials = [*bench.trials.values()]
    affinity = None
    if bench.affinity is not None:
        affinity = {
            vertical: {other: round(float(value), 4) for other, value in zip(bench.verticals, row)}
            for vertical, row in zip(bench.verticals, bench.affinity)
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "strategy": config.strategy.name,
        "groups": [list(group) for group in groups],
        "complete": complete,
        "rule": dataclasses.asdict(config.rule),
        "budget": dataclasses.asdict(config.budget),
        "trained_seconds": round(sum(trial.seconds for trial in trials), 1),
        "trained_steps": sum(trial.steps for trial in trials),
        "trials": [
            {
                "verticals": list(trial.verticals),
                "stage": trial.stage,
                "steps": trial.steps,
                "seconds": trial.seconds,
                "r_at_1": {
                    vertical: float(metrics.recall[1].mean())
                    for vertical, metrics in trial.outcomes.answered().items()
                },
            }
            for trial in trials
        ],
        "decisions": [
            {
                "group": list(decision.group),
                "accepted": decision.accepted,
                "why": decision.why,
                "evidence": [dataclasses.asdict(one) for one in decision.evidence],
            }
            for decision in bench.decisions
        ],
        "affinity": affinity,
    }


def render_search(record: Mapping[str, Any]) -> str:
    """Returns the decisions in `groups.json` as a table, followed by the groups."""
    table = Table(
        "tried",
        "accepted",
        "deciding vertical: difference, interval",
        title="Accepted if no vertical's R@1 is expected to fall more than "
        f"{record['rule']['tolerance']:g} below its own specialist's",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for decision in record["decisions"]:
        accepted = "yes" if decision["accepted"] else "no"
        table.add_row(" + ".join(decision["group"]), accepted, decision["why"])
    spent = "The budget was spent: these are the best groups found within it."
    return plain_text(
        *([table] if record["decisions"] else []),
        f"{len(record['trials'])} trainings, {record['trained_steps']:,} steps and "
        f"{record['trained_seconds'] / 60:.1f} minutes in total",
        *([] if record["complete"] else [spent]),
        *(f"  {' + '.join(group)}" for group in record["groups"]),
        width=120,
    )
