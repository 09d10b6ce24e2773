"""The configuration of losses."""

from __future__ import annotations

import dataclasses

from apparel_embed.common.settings import setting

REGRESSION_LOSSES = MSE, COSINE, SMOOTH_L1 = ("mse", "cosine", "smooth_l1")
"""Names of the student's losses."""

SMOOTH_L1_DELTA = 0.1
"""Where `smooth_l1` changes from squared to absolute. Orthogonal unit vectors in 64 dimensions
differ by 0.18 in each (root mean square). The common value of 1 would therefore leave only half
the squared error."""

DISTANCES = {"L2": 2.0, "squared-L2": 4.0, "angular": 2.0}
"""Names of the distances, each with its maximum between unit vectors."""

ALLOWED_MARGINS = ", ".join(f"{limit:g} with {name}" for name, limit in DISTANCES.items())


def _registered() -> dict[str, type[LossConfig]]:
    # The registry imports this module: a loss's own configuration is a subclass.
    from apparel_embed.losses.registry import LOSSES

    return {name: loss.config for name, loss in LOSSES.items()}


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of a triplet model.

    A loss with its own parameters defines a subclass in its file, with the parameters as further
    fields, which become flags. That file imports TensorFlow only when the loss is created.

    Raises:
      ValueError: if the loss or distance is unknown, the class is not the loss's own, or the margin
        is out of range.
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
        "how much farther a negative should be than a positive, between unit vectors (above 0, "
        f"at most {ALLOWED_MARGINS})",
    )
    distance: str = setting("L2", "distance used by the loss", choices=DISTANCES, rare=True)

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
                f"{type(self).__name__} does not configure loss {self.name!r}; "
                f"use {configs[self.name].__name__}"
            )
        if not is_margin(self.margin, self.distance):
            raise ValueError(
                f"margin {self.margin}; expected above 0 and at most {DISTANCES[self.distance]:g} "
                f"with distance {self.distance}"
            )


def is_margin(margin: float, distance: str) -> bool:
    """Returns whether a margin is above 0 and at most the maximum distance of unit vectors."""
    return 0 < margin <= DISTANCES[distance]
