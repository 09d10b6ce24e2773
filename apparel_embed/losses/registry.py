"""Registry of the losses for triplet models."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from apparel_embed.losses.addons import AddonsLossConfig, addons_semi_hard_triplet_loss
from apparel_embed.losses.config import LossConfig

if TYPE_CHECKING:
    import tensorflow as tf


class RegisteredLoss(NamedTuple):
    """How to create a loss.

    Attributes:
      make: maps its configuration to a Keras loss of (items [batch], embeddings [batch, dim]).
      config: `LossConfig`, or the subclass with the loss's own parameters.
    """

    make: Callable[[Any], tf.keras.losses.Loss]
    config: type[LossConfig] = LossConfig


def make_loss(config: LossConfig) -> tf.keras.losses.Loss:
    """Returns a loss of (items [batch], embeddings [batch, dim]) over all replicas' images."""
    return LOSSES[config.name].make(config)


# Imports are deferred until a loss is created: flags need only the names.


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
"""To add a loss, add a file and a line here."""
