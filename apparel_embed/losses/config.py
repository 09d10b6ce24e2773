"""The configuration of a triplet loss."""

from __future__ import annotations

import dataclasses

from apparel_embed.losses.distances import DISTANCES


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of a triplet model.

    A loss with parameters of its own has a subclass in its file, with these as further fields.

    Attributes:
      name: one of `LOSSES`.
      margin: by how much a negative should be farther than a positive; above 0, to the greatest
        distance there is between unit vectors.
      distance: one of `DISTANCES`.

    Raises:
      ValueError: if a value is none of these.
    """

    name: str = "semi_hard"
    margin: float = 0.3
    distance: str = "L2"

    def __post_init__(self) -> None:
        # The registry imports this module: a loss's own configuration is a subclass.
        from apparel_embed.losses.registry import LOSSES

        for what, value, allowed in (
            ("loss", self.name, LOSSES),
            ("distance", self.distance, DISTANCES),
        ):
            if value not in allowed:
                raise ValueError(f"{what} {value!r} is unknown; allowed are {', '.join(allowed)}")
        if not isinstance(self, LOSSES[self.name].config):
            raise ValueError(
                f"{type(self).__name__} configures no loss {self.name!r}; "
                f"{LOSSES[self.name].config.__name__} does"
            )
        if not is_margin(self.margin, self.distance):
            raise ValueError(
                f"margin {self.margin}; allowed is above 0, to {DISTANCES[self.distance]:g} with "
                f"distance {self.distance}"
            )


def is_margin(margin: float, distance: str) -> bool:
    """Returns whether a margin can be told apart between unit vectors at a distance."""
    return 0 < margin <= DISTANCES[distance]
