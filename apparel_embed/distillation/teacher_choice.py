"""The choice of each vertical's teacher on split val, by a rule that a few images cannot fool.

The joint of all teachers is often the best of them and rarely the worst, and among several
candidates one always looks best on a few queries. So the joint teaches, unless the queries of all
verticals together show that another kind of teacher is better, such as the specialists. The chosen
kind teaches each vertical, unless another candidate is shown to be better on its own queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from apparel_embed.evaluation.bootstrap import unseen_loss
from apparel_embed.evaluation.protocol import ALL, LEAST_ITEMS, WITHIN, Outcomes, compare_models

CONFIDENCE = 0.9
"""One-sided confidence required to prefer a candidate to the first."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The result of one candidate on the validation queries of a vertical.

    Attributes:
      name: name of the candidate.
      r_at_1: R@1 on the vertical's queries.
      difference: R@1 minus that of the first candidate, on the same queries.
      low: lower bound of the difference at `CONFIDENCE`: the lower of those from a paired bootstrap
        over items and from `unseen_loss`, since a few items may all agree by chance.
    """

    name: str
    r_at_1: float
    difference: float
    low: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """The candidate that teaches a vertical, and the evidence.

    Attributes:
      vertical: its name.
      chosen: name of the candidate.
      queries: number of validation queries with an answer; with 0, the first candidate teaches.
      items: number of distinct items of these queries.
      candidates: all candidates, the one from `choose_kind` first; none without queries.
    """

    vertical: str
    chosen: str
    queries: int = 0
    items: int = 0
    candidates: tuple[Candidate, ...] = ()


def choose_kind(kinds: Mapping[str, Mapping[str, Outcomes]], seed: int = 0) -> str:
    """Returns the kind of candidate that teaches a vertical unless its own queries show otherwise.

    Args:
      kinds: for each kind, the outcomes of its candidate within each vertical on split val that has
        an answered query; all kinds have the same verticals. The first kind is chosen unless
        another is shown to be better on the mean over verticals.
      seed: seed of the bootstrap.
    """
    wholes = {kind: _together(found) for kind, found in kinds.items()}
    first, base = next(iter(wholes.items()))
    gaps = {
        kind: compare_models(whole, base, seed=seed, confidence=2 * CONFIDENCE - 1)[ALL].low
        for kind, whole in wholes.items()
    }
    best = max(gaps, key=lambda kind: (gaps[kind], kind))
    items = sum(len(np.unique(found.items)) for found in base.answered().values())
    return best if gaps[best] > 0 and items >= LEAST_ITEMS else first


def _together(found: Mapping[str, Outcomes]) -> Outcomes:
    """Returns the combined outcomes of several candidates, each within its own vertical."""
    return Outcomes(
        WITHIN,
        {vertical: one.verticals[vertical] for vertical, one in found.items()},
        {vertical: one.gallery[vertical] for vertical, one in found.items()},
        sum(one.gallery[vertical] for vertical, one in found.items()),
    )


def choose_teacher(vertical: str, outcomes: Mapping[str, Outcomes], seed: int = 0) -> Choice:
    """Returns the choice of the candidate that teaches a vertical.

    Args:
      vertical: its name.
      outcomes: outcomes of each candidate within the vertical on split val, with at least one
        answered query; the first candidate teaches unless another is shown to be better.
      seed: seed of the bootstrap.
    """
    base = next(iter(outcomes.values())).only([vertical])
    answered = base.answered()[vertical]
    items = len(np.unique(answered.items))
    candidates = []
    for name, found in outcomes.items():
        own = found.only([vertical])
        # The lower end of this two-sided interval is that of the one-sided interval.
        gap = compare_models(own, base, seed=seed, confidence=2 * CONFIDENCE - 1)[vertical]
        low = min(gap.low, gap.difference - unseen_loss(items, CONFIDENCE))
        recall = float(own.answered()[vertical].recall[1].mean())
        candidates.append(Candidate(name, recall, gap.difference, low))
    # Fewer items are not enough evidence: even if all agree, that may be chance.
    shown = [one for one in candidates[1:] if one.low > 0 and items >= LEAST_ITEMS]
    best = max(shown, key=lambda one: (one.low, one.name), default=candidates[0])
    return Choice(vertical, best.name, len(answered), items, tuple(candidates))
