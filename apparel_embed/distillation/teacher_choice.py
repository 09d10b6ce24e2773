"""Which teacher a vertical is taught by: evidence on split val, and a rule few images cannot fool.

The joint of all teachers is often the best of them and rarely the worst, and among several
candidates one always looks best on a few queries. So the joint teaches, unless the queries of all
verticals together show that another kind of teacher is better, such as the specialists. Which of
them it is teaches a vertical, unless another candidate is shown to be better on its own queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from apparel_embed.evaluation.bootstrap import unseen_loss
from apparel_embed.evaluation.protocol import ALL, LEAST_ITEMS, WITHIN, Outcomes, compare_models

CONFIDENCE = 0.9
"""Of a candidate's being better than the joint, one-sided."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What one candidate finds on the validation queries of a vertical.

    Attributes:
      name: of the candidate.
      r_at_1: of the vertical's queries.
      difference: R@1 minus that of the first candidate, on the same queries.
      low: what the difference is above with `CONFIDENCE`: the lower of two ends, by paired
        bootstrap over items and by `unseen_loss`, as few items may all agree by chance.
    """

    name: str
    r_at_1: float
    difference: float
    low: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which candidate teaches a vertical, and why.

    Attributes:
      vertical: its name.
      chosen: name of the candidate.
      queries: validation queries with an answer; 0 where nothing is known, and the first teaches.
      items: distinct items of these queries.
      candidates: all of them, the one that `choose_kind` decides for first; none without queries.
    """

    vertical: str
    chosen: str
    queries: int = 0
    items: int = 0
    candidates: tuple[Candidate, ...] = ()


def choose_kind(kinds: Mapping[str, Mapping[str, Outcomes]], seed: int = 0) -> str:
    """Returns which kind of candidate teaches a vertical whose own queries show nothing else.

    Args:
      kinds: of each kind, vertical by vertical, what its candidate finds within the vertical on
        split val, where at least one query has an answer; all of the same verticals. The first
        stays unless another is shown to be better on the mean over verticals.
      seed: of the bootstrap.
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
    """Returns what the candidates of several verticals find, each in its own."""
    return Outcomes(
        WITHIN,
        {vertical: one.verticals[vertical] for vertical, one in found.items()},
        {vertical: one.gallery[vertical] for vertical, one in found.items()},
        sum(one.gallery[vertical] for vertical, one in found.items()),
    )


def choose_teacher(vertical: str, outcomes: Mapping[str, Outcomes], seed: int = 0) -> Choice:
    """Returns which candidate teaches a vertical.

    Args:
      vertical: its name.
      outcomes: of each candidate what it finds within the vertical on split val, where at least one
        query has an answer; the first teaches unless another is shown to be better.
      seed: of the bootstrap.
    """
    base = next(iter(outcomes.values())).only([vertical])
    answered = base.answered()[vertical]
    items = len(np.unique(answered.items))
    candidates = []
    for name, found in outcomes.items():
        own = found.only([vertical])
        # The lower end of its two-sided interval is that of the one-sided one.
        gap = compare_models(own, base, seed=seed, confidence=2 * CONFIDENCE - 1)[vertical]
        low = min(gap.low, gap.difference - unseen_loss(items, CONFIDENCE))
        recall = float(own.answered()[vertical].recall[1].mean())
        candidates.append(Candidate(name, recall, gap.difference, low))
    # On fewer items nothing is shown to be better: even if all agree, that may be chance.
    shown = [one for one in candidates[1:] if one.low > 0 and items >= LEAST_ITEMS]
    best = max(shown, key=lambda one: (one.low, one.name), default=candidates[0])
    return Choice(vertical, best.name, len(answered), items, tuple(candidates))
