"""A trainer that trains nothing: the results of its models are given."""

import numpy as np

from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.protocol import Outcomes
from apparel_embed.grouping.trials import Trial

# With fewer than 45 items, equal results are inconclusive at the default tolerance.
ITEMS, QUERIES_PER_ITEM = 60, 3


def outcomes_of(recalls, items=ITEMS):
    """Returns outcomes with the given R@1 of each vertical; the first queries are the hits."""
    verticals = {}
    for vertical, recall in recalls.items():
        names = np.repeat([f"{vertical}{number}" for number in range(items)], QUERIES_PER_ITEM)
        hits = (np.arange(len(names)) < round(recall * len(names))).astype(float)
        verticals[vertical] = QueryMetrics(
            records=np.arange(len(names)),
            items=names,
            recall=dict.fromkeys((1, 5, 10, 20), hits),
            average_precision_at_r=hits,
            chance=np.full(len(names), 1 / max(items, 1)),
            without_answer=0,
        )
    return Outcomes("within", verticals, dict.fromkeys(recalls, items), items * len(recalls))


class FakeTrainer:
    """Verticals of one family do not hurt each other; a group of several families loses `harm`.

    Args:
      families: tuples of verticals.
      own: R@1 of a vertical's own specialist.
      harm: loss of R@1 in a group with several families.
      fail_at: number of the training during which the process dies, or None.
      items: number of validation items of each vertical.
    """

    def __init__(self, families, own=0.8, harm=0.3, fail_at=None, finished=None, items=ITEMS):
        self.family = {name: number for number, group in enumerate(families) for name in group}
        self.verticals = sorted(self.family)
        self.own, self.harm, self.fail_at, self.items = own, harm, fail_at, items
        self.finished = {} if finished is None else finished
        self.trained = []

    def recall(self, group, vertical):
        """Returns R@1 on a vertical of a model trained on a group."""
        families = {self.family[name] for name in group}
        if self.family[vertical] not in families:
            return 0.1
        return self.own - (self.harm if len(families) > 1 else 0.0)

    def train(self, verticals):
        if verticals not in self.finished:
            if len(self.trained) == self.fail_at:
                raise KeyboardInterrupt
            self.trained.append(verticals)
            recalls = {name: self.recall(verticals, name) for name in self.verticals}
            self.finished[verticals] = Trial(
                verticals=verticals,
                stage="specialist-" + "+".join(verticals),
                outcomes=outcomes_of(recalls, self.items),
                steps=10 * len(verticals),
                seconds=60.0 * len(verticals),
            )
        return self.finished[verticals]

    def untrained(self):
        return outcomes_of(dict.fromkeys(self.verticals, 0.1), self.items)
