"""The losses that a triplet model can be trained with, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from apparel_embed.losses.addons import AddonsLossConfig, addons_semi_hard_triplet_loss
from apparel_embed.losses.config import LossConfig

if TYPE_CHECKING:
    import tensorflow as tf


class RegisteredLoss(NamedTuple):
    """How a loss is made.

    Attributes:
      make: from its configuration to a Keras loss of (items [batch], embeddings [batch, dim]).
      config: `LossConfig`, or the subclass with the loss's own parameters.
    """

    make: Callable[[Any], tf.keras.losses.Loss]
    config: type[LossConfig] = LossConfig


def make_loss(config: LossConfig) -> tf.keras.losses.Loss:
    """Returns a loss of (items [batch], embeddings [batch, dim]) over all replicas' images."""
    return LOSSES[config.name].make(config)


# Losses import what they are made of when they are made: flags need their names alone.


def _semi_hard(config: LossConfig) -> tf.keras.losses.Loss:
    from apparel_embed.losses.keras import TripletSemiHardLoss

    return TripletSemiHardLoss(config.margin, config.distance)


def _hard(config: LossConfig) -> tf.keras.losses.Loss:
    from apparel_embed.losses.keras import TripletHardLoss

    return TripletHardLoss(config.margin, distance_metric=config.distance)


def _lifted_structure(config: LossConfig) -> tf.keras.losses.Loss:
    from apparel_embed.losses.keras import LiftedStructLoss

    return LiftedStructLoss(config.margin, config.distance)


def _addons_semi_hard(config: LossConfig) -> tf.keras.losses.Loss:
    from apparel_embed.losses.keras import WholeBatchLoss

    function = functools.partial(
        addons_semi_hard_triplet_loss, margin=config.margin, distance_metric=config.distance
    )
    return WholeBatchLoss(function, "tfa_semi_hard")


LOSSES: dict[str, RegisteredLoss] = {
    "semi_hard": RegisteredLoss(_semi_hard),
    "hard": RegisteredLoss(_hard),
    "lifted_structure": RegisteredLoss(_lifted_structure),
    "tfa_semi_hard": RegisteredLoss(_addons_semi_hard, AddonsLossConfig),
}
"""A new loss is a file and a line here."""
