"""The bench of a search: makes trials within the budget, decides, and keeps a record of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

from apparel_embed.evaluation.protocol import Outcomes
from apparel_embed.grouping.decision import Decision, Rule, decide
from apparel_embed.grouping.trials import Budget, BudgetEnded, Group, Trainer, Trial


class Bench:
    """Makes trials and decisions for one search.

    Args:
      trainer: trains and validates.
      rule: when a group is accepted.
      budget: how much may be trained.
    """

    def __init__(self, trainer: Trainer, rule: Rule, budget: Budget) -> None:
        self.verticals = tuple(sorted(trainer.verticals))
        self.decisions: list[Decision] = []
        self.affinity: np.ndarray | None = None
        self._trainer = trainer
        self._rule = rule
        self._budget = budget
        self._trials: dict[Group, Trial] = {}

    @property
    def trials(self) -> Sequence[Trial]:
        """The trials made, in their order."""
        return list(self._trials.values())

    def trial(self, verticals: Group) -> Trial:
        """Returns the trial of a group, which is trained at most once.

        Raises:
          BudgetEnded: if the budget does not allow it.
        """
        if verticals not in self._trials:
            if not self._budget.allows_another(self.trials):
                raise BudgetEnded
            name = " + ".join(verticals)
            logging.info("grouping: trial %d: %s", len(self._trials) + 1, name)
            self._trials[verticals] = self._trainer.train(verticals)
        return self._trials[verticals]

    def judge(self, group: Group) -> Decision:
        """Returns whether a group may share a specialist.

        Raises:
          BudgetEnded: if the budget does not allow the trials it takes.
        """
        own = {vertical: self.trial((vertical,)) for vertical in group}
        decision = decide(own, self.trial, self._rule)
        self.decisions.append(decision)
        logging.info(
            "grouping: %s %s: %s",
            " + ".join(group),
            "accepted" if decision.accepted else "not accepted",
            decision.why,
        )
        return decision

    def untrained(self) -> Outcomes:
        """Returns what a model finds that has seen none of the pictures."""
        return self._trainer.untrained()

    def report_affinity(self, affinity: np.ndarray) -> None:
        """Keeps the affinity [n, n] of the verticals for the record."""
        self.affinity = affinity
        for vertical, row in zip(self.verticals, affinity):
            others = ", ".join(
                f"{other} {value:.2f}"
                for value, other in sorted(zip(row, self.verticals), reverse=True)
                if other != vertical
            )
            logging.info("grouping: affinity of %s: %s", vertical, others)
