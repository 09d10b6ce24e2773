"""Decisions on whether groups may share a specialist, by their verticals' expected losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from apparel_embed.common.settings import check_settings, setting
from apparel_embed.evaluation.protocol import Difference, Outcomes, compare_models
from apparel_embed.grouping.trials import Budget, BudgetEnded, Group, Trainer, Trial

# Weight of the whole group's mean, as a number of items, in the expectation for one vertical.
_ITEMS_OF_THE_GROUP = 20


@dataclasses.dataclass(frozen=True)
class Rule:
    """The rule that accepts a group if no vertical is expected to lose more than the tolerance.

    A vertical's expected gain is the difference in R@1 between the group's model and its own
    specialist, shrunk towards that of the whole group if its items are few (docs/groups.md).

    Attributes:
      seed: seed of the bootstrap, whose intervals are reported but do not affect decisions.

    Raises:
      UserError: if a value is out of range.
    """

    tolerance: float = setting(
        0.05,
        "largest expected loss of a vertical's validation R@1 in a group, compared with its own "
        "specialist",
        0.0,
        1.0,
        flag="grouping_tolerance",
    )
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class Evidence(Difference):
    """R@1 of a group's model minus that of a vertical's own specialist, on its queries.

    Attributes:
      items: number of distinct items of the queries.
      expected: the difference, shrunk towards the group's.
    """

    items: int
    expected: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision on a group, and its evidence.

    Attributes:
      group: the verticals.
      accepted: whether they may share a specialist.
      evidence: evidence from each vertical with an answered validation query.
      without_queries: verticals without one; their gain is assumed to be that of the others.
      tolerance: as in the rule.
    """

    group: Group
    accepted: bool
    evidence: tuple[Evidence, ...]
    without_queries: tuple[str, ...]
    tolerance: float

    @property
    def why(self) -> str:
        """The reason in one line."""
        if not self.evidence:
            return f"no validation query in {', '.join(self.without_queries)}"
        worst = min(self.evidence, key=lambda one: (one.expected, one.vertical))
        relation = "not below" if self.accepted else "below"
        return (
            f"{worst.vertical} {worst.difference:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}] over "
            f"{worst.items} items, expected {worst.expected:+.3f}, {relation} "
            f"{-self.tolerance:+.3f}"
        )


def decide(own: Mapping[str, Trial], train: Callable[[Group], Trial], rule: Rule) -> Decision:
    """Returns the decision on whether a group may share a specialist.

    Args:
      own: the trial of each of its verticals alone.
      train: trains the trial of the group; not called if no vertical has a validation query.
      rule: the rule of acceptance.
    """
    verticals = tuple(own)
    missing = tuple(name for name in verticals if name not in own[name].outcomes.answered())
    if missing == verticals:
        return Decision(verticals, False, (), missing, rule.tolerance)
    group = train(verticals)
    known = [name for name in verticals if name not in missing]
    found = [
        compare_models(
            group.outcomes.only([name]), own[name].outcomes.only([name]), seed=rule.seed
        )[name]
        for name in known
    ]
    items = [len(np.unique(own[name].outcomes.verticals[name].items)) for name in known]
    expected = expected_gains([one.difference for one in found], items)
    evidence = tuple(
        Evidence(**dataclasses.asdict(one), items=count, expected=gain)
        for one, count, gain in zip(found, items, expected)
    )
    accepted = all(one.expected >= -rule.tolerance for one in evidence)
    return Decision(verticals, accepted, evidence, missing, rule.tolerance)


def expected_gains(differences: Sequence[float], items: Sequence[int]) -> list[float]:
    """Returns the expected gain of each vertical of a group; see `Rule`.

    Args:
      differences: the observed difference in each vertical.
      items: the number of items that each was observed on, 1 or more.

    Examples:
      >>> expected_gains([-0.2, 0.1], [5, 45])
      [0.016, 0.091]
    """
    mean = float(np.average(differences, weights=items))
    return [
        round((count * one + _ITEMS_OF_THE_GROUP * mean) / (count + _ITEMS_OF_THE_GROUP), 3)
        for one, count in zip(differences, items)
    ]


class Bench:
    """The trials and decisions of one search, made within its budget.

    Args:
      trainer: trains and validates models.
      rule: the rule of acceptance.
      budget: how much may be trained.

    Attributes:
      verticals: all verticals, sorted.
      trials: the trials so far, by group, in order.
      decisions: the decisions so far, in order.
      affinity: affinity of the verticals [n, n], once a strategy has measured it.
    """

    def __init__(self, trainer: Trainer, rule: Rule, budget: Budget) -> None:
        self.verticals = tuple(sorted(trainer.verticals))
        self.trials: dict[Group, Trial] = {}
        self.decisions: list[Decision] = []
        self.affinity: np.ndarray | None = None
        self._trainer, self._rule, self._budget = trainer, rule, budget

    def trial(self, group: Group) -> Trial:
        """Returns the trial of a group, which is trained at most once.

        Raises:
          BudgetEnded: if the budget does not allow it.
        """
        if group not in self.trials:
            if not self._budget.allows_another([*self.trials.values()]):
                raise BudgetEnded
            logging.info("grouping: trial %d: %s", len(self.trials) + 1, " + ".join(group))
            self.trials[group] = self._trainer.train(group)
        return self.trials[group]

    def judge(self, group: Group) -> bool:
        """Returns whether a group may share a specialist.

        Raises:
          BudgetEnded: if the budget does not allow the required trials.
        """
        own = {vertical: self.trial((vertical,)) for vertical in group}
        decision = decide(own, self.trial, self._rule)
        self.decisions.append(decision)
        verdict = "accepted" if decision.accepted else "not accepted"
        logging.info("grouping: %s %s: %s", " + ".join(group), verdict, decision.why)
        return decision.accepted

    def untrained(self) -> Outcomes:
        """Returns the outcomes of the model that trials start from."""
        return self._trainer.untrained()
