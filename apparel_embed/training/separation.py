"""Keeping the targets of different groups apart, so that they can be searched together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apparel_embed.errors import UserError

MOST_SEPARATION = 0.99


def separate_groups(groups: Sequence[np.ndarray], strength: float) -> list[np.ndarray]:
    """Gives each group a direction of its own, at right angles to all that there was.

    A target t of group g becomes `[sqrt(1 - a^2) t, a e_g]` with the strength a and the unit
    vectors e_g of as many further dimensions as there are groups. By Pythagoras, squared distances
    within a group are all multiplied by `1 - a^2`, so that its ranking is the same, and those
    between groups are `1 - a^2` times the old plus `2 a^2`. Further dimensions are what this
    takes: no map of the unit sphere into a part of itself keeps every ranking on it. Above a =
    0.82, sqrt(2 / 3), no two targets of different groups are as near as any two of one group.

    Args:
      groups: of each group float32 [n, dim], of unit length.
      strength: a, 0 to `MOST_SEPARATION`; 0 leaves targets, and their length, as they are.

    Returns:
      Of each group float32 [n, dim + number of groups], of unit length.

    Raises:
      UserError: if the strength is out of range.
    """
    if not 0 <= strength <= MOST_SEPARATION:
        raise UserError(f"--separate_groups={strength}: allowed are 0 to {MOST_SEPARATION}")
    if strength == 0:
        return list(groups)
    kept = np.sqrt(1 - strength**2)
    directions = strength * np.eye(len(groups))
    return [
        np.hstack([kept * group, np.tile(direction, [len(group), 1])]).astype(np.float32)
        for group, direction in zip(groups, directions)
    ]
