"""The configuration of losses."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting

REGRESSION_LOSSES = MSE, COSINE, SMOOTH_L1 = ("mse", "cosine", "smooth_l1")
"""Names of the student's losses."""

SMOOTH_L1_DELTA = 0.1
"""Where `smooth_l1` goes over from squared to absolute. Unit vectors at right angles in 64
dimensions differ by 0.18 in each (root of the mean square), so that 1, a usual value, would leave
nothing but half the squared error."""

DISTANCES = {"L2": 2.0, "squared-L2": 4.0, "angular": 2.0}
"""Names of the distances, each with the greatest value it takes between unit vectors."""

ALLOWED_MARGINS = ", ".join(f"{limit:g} with {name}" for name, limit in DISTANCES.items())


def _registered() -> dict[str, type[LossConfig]]:
    # The registry imports this module: a loss's own configuration is a subclass.
    from apparel_embed.losses.registry import LOSSES

    return {name: loss.config for name, loss in LOSSES.items()}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of a triplet model.

    A loss with parameters of its own has a subclass in its file, with these as further fields, of
    which flags are made. That file imports TensorFlow when the loss is made: flags need none.

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
