"""Transfer affinity: how well the specialist of one vertical works for another; and its clusters.

It needs no training beyond the specialists themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from apparel_embed.evaluation.protocol import Outcomes
from apparel_embed.grouping.trials import Group, Trial

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import ClusterNode

# If a specialist's R@1 exceeds the untrained model's by less, it has learnt nothing to share.
_LEAST_GAIN = 1e-6


def transfer_affinity(
    verticals: Sequence[str], own: Mapping[str, Trial], untrained: Outcomes
) -> np.ndarray:
    """Returns how much of a specialist's gain remains when two verticals swap specialists.

    For vertical j with the specialist of i: (R@1 - untrained) / (R@1 of j's own - untrained),
    clipped to -1 to 1. The affinity is the mean of both directions. A vertical without answered
    queries or without a gain has affinity 0 to all others.

    Args:
      verticals: n names.
      own: trial of each vertical alone.
      untrained: outcomes of the model that trials start from.

    Returns:
      float64 [n, n], symmetric, -1 to 1, ones on the diagonal.
    """
    count = len(verticals)
    one_way = np.zeros([count, count])
    learnt = np.zeros(count, bool)
    for j, target in enumerate(verticals):
        floor, best = _recall(untrained, target), _recall(own[target].outcomes, target)
        if floor is None or best is None or best - floor < _LEAST_GAIN:
            continue
        learnt[j] = True
        for i, source in enumerate(verticals):
            # Whether a query has an answer does not depend on the model.
            found = cast(float, _recall(own[source].outcomes, target))
            one_way[i, j] = np.clip((found - floor) / (best - floor), -1.0, 1.0)
    affinity = np.where(np.outer(learnt, learnt), (one_way + one_way.T) / 2, 0.0)
    np.fill_diagonal(affinity, 1.0)
    return affinity


def clusters(verticals: Sequence[str], affinity: np.ndarray, threshold: float) -> list[ClusterNode]:
    """Returns the largest clusters whose mean affinity reaches a threshold.

    Average linkage: the affinity of two clusters is the mean over the pairs of their verticals.

    Args:
      verticals: n names.
      affinity: float [n, n], symmetric, -1 to 1.
      threshold: the lowest affinity at which two clusters are merged.

    Returns:
      Trees whose leaves are positions in `verticals`, in the order of their first leaf.
    """
    # Imported here because it takes a while, and most strategies need no clusters.
    from scipy.cluster.hierarchy import ClusterNode, linkage, to_tree
    from scipy.spatial.distance import squareform

    if len(verticals) == 1:
        return [ClusterNode(0)]
    distances = squareform(1.0 - affinity, checks=False)
    found, open_nodes = [], [to_tree(linkage(distances, method="average"))]
    while open_nodes:
        node = open_nodes.pop()
        if node.is_leaf() or node.dist <= 1.0 - threshold:
            found.append(node)
        else:
            open_nodes += [node.left, node.right]
    return sorted(found, key=lambda node: min(node.pre_order()))


def members(node: ClusterNode, verticals: Sequence[str]) -> Group:
    """Returns the verticals of a cluster, sorted."""
    return tuple(sorted(verticals[position] for position in node.pre_order()))


def _recall(outcomes: Outcomes, vertical: str) -> float | None:
    metrics = outcomes.answered().get(vertical)
    return None if metrics is None else float(metrics.recall[1].mean())
