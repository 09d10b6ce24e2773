"""Whether a group may share a specialist: a test of not being worse, on every vertical of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from apparel_embed.errors import UserError
from apparel_embed.evaluation.protocol import Difference, compare_models
from apparel_embed.grouping.trials import Group, Trial


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a group is accepted.

    For each of its verticals R@1 of the group's model minus that of the vertical's own specialist
    is taken on the same validation queries. The group is accepted if each difference is above
    `-tolerance` with some confidence: the lower end of its one-sided interval, by paired bootstrap
    over items, is (a test of non-inferiority). What little data cannot show is not accepted.

    Attributes:
      tolerance: in R@1, 0 to 1.
      confidence: above 0.5, below 1.
      seed: of the bootstrap.

    Raises:
      UserError: if a value is out of range.
    """

    tolerance: float = 0.05
    confidence: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise UserError(f"tolerance is {self.tolerance}; allowed is 0 to 1")
        if not 0.5 < self.confidence < 1:
            raise UserError(f"confidence is {self.confidence}; allowed is above 0.5 and below 1")


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided of a group, and why.

    Attributes:
      group: the verticals.
      accepted: whether they may share a specialist.
      evidence: per vertical R@1 of the group's model minus that of its own specialist.
      without_queries: verticals that have no query in the validation split: nothing is known.
      tolerance: as in the rule.
    """

    group: Group
    accepted: bool
    evidence: tuple[Difference, ...]
    without_queries: tuple[str, ...]
    tolerance: float

    @property
    def why(self) -> str:
        """The reason in one line."""
        if self.without_queries:
            return f"no validation query in {', '.join(self.without_queries)}"
        worst = min(self.evidence, key=lambda one: (one.low, one.vertical))
        relation = "above" if self.accepted else "not above"
        return (
            f"{worst.vertical} {worst.difference:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}] over "
            f"{worst.queries} queries, lower end {relation} {-self.tolerance:+.3f}"
        )


def decide(own: Mapping[str, Trial], train: Callable[[Group], Trial], rule: Rule) -> Decision:
    """Returns whether a group may share a specialist.

    Args:
      own: of each of its verticals the trial alone.
      train: makes the trial of the group; not called if a vertical has no validation query.
      rule: when to accept.
    """
    verticals = tuple(own)
    missing = tuple(name for name in verticals if name not in own[name].outcomes.answered())
    if missing:
        return Decision(verticals, False, (), missing, rule.tolerance)
    group = train(verticals)
    evidence = []
    for vertical in verticals:
        differences = compare_models(
            group.outcomes.only([vertical]),
            own[vertical].outcomes.only([vertical]),
            seed=rule.seed,
            # Its lower end is that of the one-sided interval.
            confidence=2 * rule.confidence - 1,
        )
        evidence.append(differences[vertical])
    accepted = all(one.low > -rule.tolerance for one in evidence)
    return Decision(verticals, accepted, tuple(evidence), (), rule.tolerance)
