"""Whether groups may share a specialist, by what their verticals are expected to lose."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import logging

from apparel_embed.common.settings import check_settings, setting
from apparel_embed.evaluation.protocol import Difference, Outcomes, compare_models
from apparel_embed.grouping.trials import Budget, BudgetEnded, Group, Trainer, Trial

# Items that what is known of the whole group counts as, in the expectation for one vertical.
_ITEMS_OF_THE_GROUP = 20


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a group is accepted: if no vertical is expected to lose more than the tolerance.

    What a vertical is expected to gain is the difference in R@1 between the group's model and its
    own specialist, shrunk towards that of the whole group as its items are few (docs/groups.md).

    Attributes:
      seed: of the bootstrap, whose intervals are reported and decide nothing.

    Raises:
      UserError: if a value is out of range.
    """

    tolerance: float = setting(
        0.05,
        "how far a vertical's validation R@1 may be expected to fall in a group, compared with its "
        "own specialist",
        0.0,
        1.0,
        flag="grouping_tolerance",
    )
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class Evidence(Difference):
    """R@1 of a group's model minus that of the own specialist, on the queries of one vertical.

    Attributes:
      items: distinct items of the queries.
      expected: the difference, shrunk towards the group's.
    """

    items: int
    expected: float


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided of a group, and why.

    Attributes:
      group: the verticals.
      accepted: whether they may share a specialist.
      evidence: of each vertical that has a query in the validation split.
      without_queries: verticals that have none; they are expected to gain what the others do.
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
    """Returns whether a group may share a specialist.

    Args:
      own: of each of its verticals the trial alone.
      train: makes the trial of the group; not called if no vertical has a validation query.
      rule: when to accept.
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
    """Returns what each vertical of a group is expected to gain, see `Rule`.

    Args:
      differences: observed in each vertical.
      items: that each was observed on, 1 or more.

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
    """Makes the trials and decisions of one search, within its budget, and keeps them.

    Args:
      trainer: trains and validates.
      rule: when a group is accepted.
      budget: how much may be trained.

    Attributes:
      verticals: all, sorted.
      trials: those made, by group, in their order.
      decisions: those made, in their order.
      affinity: of the verticals [n, n], once a strategy has measured it.
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
          BudgetEnded: if the budget does not allow the trials it takes.
        """
        own = {vertical: self.trial((vertical,)) for vertical in group}
        decision = decide(own, self.trial, self._rule)
        self.decisions.append(decision)
        verdict = "accepted" if decision.accepted else "not accepted"
        logging.info("grouping: %s %s: %s", " + ".join(group), verdict, decision.why)
        return decision.accepted

    def untrained(self) -> Outcomes:
        """Returns what a model finds that has seen none of the images."""
        return self._trainer.untrained()
