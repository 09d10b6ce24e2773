"""Trials: trainings of groups of verticals, validated to see whether they can share a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.evaluation.protocol import Outcomes

Group = tuple[str, ...]
"""Verticals that share a specialist, sorted."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A model trained on a group, and its outcomes on the validation split.

    Attributes:
      verticals: the group.
      stage: name of the model's stage.
      outcomes: outcomes within each vertical of the dataset, including those not trained on.
      steps: number of steps of its training.
      seconds: duration of its training, even if an earlier search ran it.
    """

    verticals: Group
    stage: str
    outcomes: Outcomes
    steps: int
    seconds: float


class Trainer(Protocol):
    """Trains and validates the models of a search."""

    @property
    def verticals(self) -> Sequence[str]:
        """All verticals of the dataset."""

    def train(self, verticals: Group) -> Trial:
        """Returns the trial of a group, which is trained unless it was finished before."""

    def untrained(self) -> Outcomes:
        """Returns the outcomes of the model that trials start from."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much a search may train; None is unlimited.

    Trainings finished by an earlier search count like new ones, so an interrupted search gives the
    same result. A training that exceeds the minutes is still finished.

    Raises:
      UserError: if a value is not above 0.
    """

    trainings: int | None = setting(
        None,
        "maximum number of trainings in the search, including finished ones; unlimited by default",
        1,
        flag="budget_trainings",
        rare=True,
    )
    minutes: float | None = setting(
        None,
        "maximum minutes of training in the search, including finished trainings; unlimited by "
        "default",
        0.1,
        flag="budget_minutes",
        rare=True,
    )

    def __post_init__(self) -> None:
        for name in ("trainings", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"budget of {name} is {value}; expected more than 0")

    def allows_another(self, trials: Sequence[Trial]) -> bool:
        """Returns whether another training may follow these."""
        if self.trainings is not None and len(trials) >= self.trainings:
            return False
        return self.minutes is None or sum(trial.seconds for trial in trials) < 60 * self.minutes


class BudgetEnded(Exception):
    """The search wants a training that its budget does not allow."""
