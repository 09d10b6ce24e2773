"""Whether a group may share a specialist: a test of not being worse, on every vertical of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from apparel_embed.errors import UserError
from apparel_embed.evaluation.protocol import Difference, compare_models
from apparel_embed.grouping.trials import Group, Trial

# What rounding may leave of a share that is 0.
_LEAST_SHARE = 1e-9


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a group is accepted.

    For each of its verticals R@1 of the group's model minus that of the vertical's own specialist
    is taken on the same validation queries. The group is accepted if each difference is above
    `-tolerance` with some confidence: the lower end of its one-sided interval is (a test of
    non-inferiority). The end is the lower of two: by paired bootstrap over items, and the
    difference less `unseen_loss`, as items that all agree leave a bootstrap no width however few
    they are. What little data cannot show is not accepted: a tie needs 45 items of each vertical
    to show a tolerance of 0.05 with confidence 0.9.

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
class Evidence(Difference):
    """R@1 of a group's model minus that of the own specialist, on the queries of one vertical.

    Attributes:
      items: distinct items of the queries.
      items_needed: least number of items with which this difference could have been accepted; None
        if it could with none.
    """

    items: int
    items_needed: int | None

    @property
    def has_few_items(self) -> bool:
        """Whether this difference cannot be accepted for want of items alone."""
        return self.items_needed is not None and self.items < self.items_needed


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
    evidence: tuple[Evidence, ...]
    without_queries: tuple[str, ...]
    tolerance: float

    @property
    def why(self) -> str:
        """The reason in one line."""
        if self.without_queries:
            return f"no validation query in {', '.join(self.without_queries)}"
        # Few items are the reason only where no vertical is refused for another one.
        refused = [one for one in self.evidence if not one.low > -self.tolerance]
        harmed = [one for one in refused if not one.has_few_items]
        worst = min(harmed or self.evidence, key=lambda one: (one.low, one.vertical))
        found = (
            f"{worst.vertical} {worst.difference:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}] over "
            f"{worst.queries} queries"
        )
        if refused and not harmed:
            return (
                f"{found}: the validation split is too small ({worst.items} items, at least "
                f"{worst.items_needed} needed)"
            )
        relation = "above" if self.accepted else "not above"
        return f"{found}, lower end {relation} {-self.tolerance:+.3f}"


def unseen_loss(items: int, confidence: float) -> float:
    """Returns the largest share of all items that may be lost although none of those seen is.

    It is the exact upper limit of a share of which no case was seen (Clopper and Pearson, 1934): if
    more were lost, one of the items seen would be, with this confidence or more. At 0.95 it is
    about 3 / items, the "rule of three".

    Args:
      items: number of items seen, 1 or more.
      confidence: above 0, below 1.
    """
    return 1 - (1 - confidence) ** (1 / items)


def items_to_show(share: float, confidence: float) -> int | None:
    """Returns the least number of items whose `unseen_loss` is below a share.

    Args:
      share: of items.
      confidence: above 0, below 1.

    Returns:
      1 or more; None if the share is not above 0, which no number of items shows.
    """
    if share < _LEAST_SHARE:
        return None
    if share >= 1:
        return 1
    return math.floor(math.log(1 - confidence) / math.log1p(-share)) + 1


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
    evidence = tuple(_evidence(group, own[vertical], vertical, rule) for vertical in verticals)
    accepted = all(one.low > -rule.tolerance for one in evidence)
    return Decision(verticals, accepted, evidence, (), rule.tolerance)


def _evidence(group: Trial, own: Trial, vertical: str, rule: Rule) -> Evidence:
    """Returns what the queries of a vertical say of a group's model and its own specialist."""
    found = compare_models(
        group.outcomes.only([vertical]),
        own.outcomes.only([vertical]),
        seed=rule.seed,
        # Its lower end is that of the one-sided interval.
        confidence=2 * rule.confidence - 1,
    )[vertical]
    items = len(np.unique(own.outcomes.verticals[vertical].items))
    low = min(found.low, found.difference - unseen_loss(items, rule.confidence))
    return Evidence(
        **{**dataclasses.asdict(found), "low": low},
        items=items,
        items_needed=items_to_show(found.difference + rule.tolerance, rule.confidence),
    )
