"""How well the specialist of one vertical serves another: transfer affinity, and its clusters.

It costs no training beyond the specialists themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from apparel_embed.evaluation.protocol import Outcomes
from apparel_embed.grouping.trials import Group, Trial

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import ClusterNode

# Below this much R@1 of own specialist above untrained model, nothing was learnt to be shared.
_LEAST_GAIN = 1e-6


def transfer_affinity(
    verticals: Sequence[str], own: Mapping[str, Trial], untrained: Outcomes
) -> np.ndarray:
    """Returns how much of a specialist's worth remains when two verticals swap theirs.

    Of vertical j under the specialist of i: (R@1 - untrained) / (R@1 of j's own - untrained), cut
    to -1 to 1; the affinity is the mean of both directions. A vertical in which nothing is known to
    be learnt, for want of queries or of a gain, has no affinity to any other.

    Args:
      verticals: names, n of them.
      own: trial of each vertical alone.
      untrained: outcomes of a model that has learnt nothing.

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
    """Returns the largest clusters whose verticals are alike on average.

    Average linkage: the affinity of two clusters is the mean over the pairs of their verticals.

    Args:
      verticals: names, n of them.
      affinity: float [n, n], symmetric, -1 to 1.
      threshold: least affinity at which two clusters are one.

    Returns:
      Trees whose leaves are positions in `verticals`, in the order of their first leaf.
    """
    # Imported here: it takes a while, and most strategies ask for no clusters.
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
