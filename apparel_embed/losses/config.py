"""The configuration of a triplet loss."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting
from apparel_embed.losses.distances import DISTANCES

ALLOWED_MARGINS = ", ".join(f"{limit:g} with {name}" for name, limit in DISTANCES.items())


def _registered() -> dict[str, type[LossConfig]]:
    # The registry imports this module: a loss's own configuration is a subclass.
    from apparel_embed.losses.registry import LOSSES

    return {name: loss.config for name, loss in LOSSES.items()}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of a triplet model.

    A loss with parameters of its own has a subclass in its file, with these as further fields.

    Raises:
      ValueError: if a value is none of these.
    """

    name: str = setting(
        "semi_hard",
        "loss of triplet models; tfa_semi_hard is TensorFlow Addons' own semi-hard loss, whose "
        "memory grows with the batch's cube",
        choices=_registered,
        flag="loss",
    )
    margin: float = setting(
        0.3,
        "by how much a negative should be farther than a positive, between unit vectors (above "
        f"0, to {ALLOWED_MARGINS})",
    )
    distance: str = setting("L2", "distance that the loss measures", choices=DISTANCES, seldom=True)

    def __post_init__(self) -> None:
        configs = _registered()
        for what, value, allowed in (
            ("loss", self.name, configs),
            ("distance", self.distance, DISTANCES),
        ):
            if value not in allowed:
                known = ", ".join(allowed)
                raise ValueError(f"{what} {value!r} is unknown; expected one of {known}")
        if not isinstance(self, configs[self.name]):
            raise ValueError(
                f"{type(self).__name__} configures no loss {self.name!r}; "
                f"{configs[self.name].__name__} does"
            )
        if not is_margin(self.margin, self.distance):
            raise ValueError(
                f"margin {self.margin}; expected above 0, to {DISTANCES[self.distance]:g} with "
                f"distance {self.distance}"
            )


def is_margin(margin: float, distance: str) -> bool:
    """Returns whether a margin can be told apart between unit vectors at a distance."""
    return 0 < margin <= DISTANCES[distance]
