"""The losses that a triplet model can be trained with, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from apparel_embed.losses.addons import AddonsLossConfig, addons_semi_hard_triplet_loss
from apparel_embed.losses.config import LossConfig
from apparel_embed.losses.keras import (
    LiftedStructLoss,
    TripletHardLoss,
    TripletSemiHardLoss,
    WholeBatchLoss,
)


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


def _addons_semi_hard(config: LossConfig) -> tf.keras.losses.Loss:
    function = functools.partial(
        addons_semi_hard_triplet_loss, margin=config.margin, distance_metric=config.distance
    )
    return WholeBatchLoss(function, "tfa_semi_hard")


LOSSES: dict[str, RegisteredLoss] = {
    "semi_hard": RegisteredLoss(lambda config: TripletSemiHardLoss(config.margin, config.distance)),
    "hard": RegisteredLoss(
        lambda config: TripletHardLoss(config.margin, distance_metric=config.distance)
    ),
    "lifted_structure": RegisteredLoss(
        lambda config: LiftedStructLoss(config.margin, config.distance)
    ),
    "tfa_semi_hard": RegisteredLoss(_addons_semi_hard, AddonsLossConfig),
}
"""A new loss is a file and a line here."""
