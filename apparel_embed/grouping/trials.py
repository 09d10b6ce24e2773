"""Trials: trainings of a group of verticals, whose validation shows whether they get along."""

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
    """A model trained on a group, and what it finds on the validation split.

    Attributes:
      verticals: the group.
      stage: name of the stage with the model.
      outcomes: within each vertical of the dataset, those it was not trained on too.
      steps: of its training.
      seconds: that its training took, whenever that was.
    """

    verticals: Group
    stage: str
    outcomes: Outcomes
    steps: int
    seconds: float


class Trainer(Protocol):
    """What trains and validates the models of a search."""

    @property
    def verticals(self) -> Sequence[str]:
        """All verticals of the dataset."""

    def train(self, verticals: Group) -> Trial:
        """Returns the trial of a group, trained now or found finished."""

    def untrained(self) -> Outcomes:
        """Returns what a model finds that has seen none of the images."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much a search may train; None is without end.

    Trainings that an earlier search finished count like those of this one, so that a search that
    was interrupted comes to the same end. The training during which minutes end is finished.

    Raises:
      UserError: if one of them is not above 0.
    """

    trainings: int | None = setting(
        None,
        "trainings that the search may take, finished ones included; by default as many as it "
        "wants",
        1,
        flag="budget_trainings",
        seldom=True,
    )
    minutes: float | None = setting(
        None,
        "minutes of training that the search may take, finished ones included; by default as many "
        "as it wants",
        0.1,
        flag="budget_minutes",
        seldom=True,
    )

    def __post_init__(self) -> None:
        for name in ("trainings", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"budget of {name} is {value}; expected above 0")

    def allows_another(self, trials: Sequence[Trial]) -> bool:
        """Returns whether a training may follow these."""
        if self.trainings is not None and len(trials) >= self.trainings:
            return False
        return self.minutes is None or sum(trial.seconds for trial in trials) < 60 * self.minutes


class BudgetEnded(Exception):
    """The search wants a training that its budget does not allow."""
