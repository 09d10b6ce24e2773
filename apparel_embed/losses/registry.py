"""The losses that a triplet model can be trained with, by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import tensorflow as tf

from apparel_embed.common.settings import setting
from apparel_embed.losses.distances import DISTANCES
from apparel_embed.losses.keras import (
    LiftedStructLoss,
    TripletHardLoss,
    TripletSemiHardLoss,
    WholeBatchLoss,
)

ALLOWED_MARGINS = ", ".join(f"{limit:g} with {name}" for name, limit in DISTANCES.items())


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss of a triplet model.

    Raises:
      ValueError: if a value is none of these.
    """

    name: str = setting(
        "semi_hard",
        "loss of triplet models; tfa_semi_hard is TensorFlow Addons' own semi-hard loss, whose "
        "memory grows with the batch's cube",
        choices=lambda: LOSSES,
        flag="loss",
    )
    margin: float = setting(
        0.3,
        "by how much a negative should be farther than a positive, between unit vectors (above "
        f"0, to {ALLOWED_MARGINS})",
    )
    distance: str = setting("L2", "distance that the loss measures", choices=DISTANCES, seldom=True)

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("loss", self.name, LOSSES),
            ("distance", self.distance, DISTANCES),
        ):
            if value not in allowed:
                raise ValueError(f"{what} {value!r} is unknown; allowed are {', '.join(allowed)}")
        if not is_margin(self.margin, self.distance):
            raise ValueError(
                f"margin {self.margin}; allowed is above 0, to {DISTANCES[self.distance]:g} with "
                f"distance {self.distance}"
            )


def is_margin(margin: float, distance: str) -> bool:
    """Returns whether a margin can be told apart between unit vectors at a distance."""
    return 0 < margin <= DISTANCES[distance]


def make_loss(config: LossConfig) -> tf.keras.losses.Loss:
    """Returns a loss of (items [batch], embeddings [batch, dim]) over all replicas' pictures."""
    return LOSSES[config.name](config)


def _addons_semi_hard(config: LossConfig) -> tf.keras.losses.Loss:
    # Imported where it is asked for: nothing else needs TensorFlow Addons.
    from apparel_embed.losses.addons import addons_semi_hard_triplet_loss

    function = functools.partial(
        addons_semi_hard_triplet_loss, margin=config.margin, distance_metric=config.distance
    )
    return WholeBatchLoss(function, "tfa_semi_hard")


LOSSES: dict[str, Callable[[LossConfig], tf.keras.losses.Loss]] = {
    "semi_hard": lambda config: TripletSemiHardLoss(config.margin, config.distance),
    "hard": lambda config: TripletHardLoss(config.margin, distance_metric=config.distance),
    "lifted_structure": lambda config: LiftedStructLoss(config.margin, config.distance),
    "tfa_semi_hard": _addons_semi_hard,
}
"""Losses by name, each a function from a `LossConfig` to a Keras loss."""
