"""The losses as Keras losses: serialisable, over the whole batch on any number of replicas."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from apparel_embed.common.keras_version import require_keras_2
from apparel_embed.losses.distances import Distance
from apparel_embed.losses.margin import MarginArguments
from apparel_embed.losses.replicas import gather_replicas
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

require_keras_2()
_NONE = tf.keras.losses.Reduction.NONE


class WholeBatchLoss(tf.keras.losses.Loss):
    """A loss of the whole batch across all replicas, rather than a mean over images.

    Each replica gathers the whole batch. N replicas with B / N images each then give the value and,
    summed over the replicas, the gradients of one device with B images, in `model.fit` and in a
    custom loop. The reduction is NONE: do not divide the value by the number of replicas.

    Args:
      function: maps labels [batch, ...] and embeddings [batch, dim] to a scalar.
      name: shown in logs.
    """

    def __init__(
        self, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], name: str | None = None
    ) -> None:
        super().__init__(reduction=_NONE, name=name)
        self._function = function

    @tf.autograph.experimental.do_not_convert
    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the scalar loss of labels [batch, ...] and embeddings [batch, dim]."""
        return self._function(*gather_replicas(y_true, y_pred))


class _MarginLoss(MarginArguments, WholeBatchLoss):
    """Base of losses with a margin and a distance; for arguments see `TripletSemiHardLoss`."""

    _saving = tf.keras.saving

    def __init__(
        self,
        margin: float = 1.0,
        distance_metric: Distance = "L2",
        name: str | None = None,
        reduction: str = _NONE,
        **options: bool,
    ) -> None:
        if reduction != _NONE:
            raise ValueError(
                f"reduction {reduction!r}: expected {_NONE!r}, as there is no loss per image"
            )
        function = self.keep_arguments(margin, distance_metric, options)
        super().__init__(function, name)


@tf.keras.saving.register_keras_serializable(package="apparel_embed")
class TripletSemiHardLoss(_MarginLoss):
    """Triplet loss with semi-hard negatives: TFA's of the same name, without its cubic memory.

    See `semi_hard_triplet_loss`. Labels are items, [batch] or [batch, 1]: integers, or
    floating-point numbers that are not rounded (whole, and below 2**24 in float32).

    Args:
      margin: how much farther a negative should be than a positive, 0 or more.
      distance_metric: "L2", "squared-L2", "angular" or a function from embeddings [batch, dim] to
        distances [batch, batch]. Embeddings should have unit length with a named distance.
      name: shown in logs.
      reduction: NONE, the only reduction that a loss over pairs supports.

    Raises:
      ValueError: if the margin is below 0, the distance unknown, or the reduction not NONE.

    Examples:
      >>> loss = TripletSemiHardLoss(margin=0.3)
      >>> embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
      >>> float(loss(tf.constant([7, 7, 8]), embeddings))
      0.6...
      >>> model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
      >>> model.compile("adam", loss=loss)
    """

    function_with_arguments = staticmethod(semi_hard_triplet_loss)


@tf.keras.saving.register_keras_serializable(package="apparel_embed")
class TripletHardLoss(_MarginLoss):
    """Triplet loss with each anchor's farthest positive and nearest negative, as in TFA.

    See `hard_triplet_loss`. Arguments and errors are those of `TripletSemiHardLoss`, plus `soft`.

    Args:
      soft: whether to use log(1 + exp(.)) instead of a margin.

    Examples:
      >>> embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
      >>> float(TripletHardLoss(margin=0.3)(tf.constant([7, 7, 8]), embeddings))
      0.4...
    """

    function_with_arguments = staticmethod(hard_triplet_loss)

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: Distance = "L2",
        name: str | None = None,
        reduction: str = _NONE,
    ) -> None:
        super().__init__(margin, distance_metric, name, reduction, soft=soft)


@tf.keras.saving.register_keras_serializable(package="apparel_embed")
class LiftedStructLoss(_MarginLoss):
    """Lifted structured loss, which weighs all negatives of a positive pair, as in TFA.

    See `lifted_structure_loss`. Arguments and errors are those of `TripletSemiHardLoss`.

    Examples:
      >>> embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
      >>> float(LiftedStructLoss(margin=0.3)(tf.constant([7, 7, 8]), embeddings)) > 0
      True
    """

    function_with_arguments = staticmethod(lifted_structure_loss)
