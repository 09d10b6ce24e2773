"""The losses as Keras losses: serialisable, and of the whole batch on any number of replicas."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from apparel_embed.losses.distances import Distance, check_distance
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

_NONE = tf.keras.losses.Reduction.NONE


def gather_replicas(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels and embeddings of all replicas, in their order.

    To be called by each replica, for a loss of the whole batch: every replica then computes the
    same loss, and the gradient that it takes by its own embeddings is that loss's, once. Summed
    over the replicas, as optimisers do, gradients by the weights equal those of one device that
    has the whole batch. Not to be divided by the number of replicas again.

    Outside of a strategy, or with one replica, returns what it is given.

    Args:
      labels: [own batch] or [own batch, ...]; a replica's may be shorter than another's.
      embeddings: float [own batch, dim].

    Returns:
      labels [batch] or [batch, ...] and embeddings [batch, dim].
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return labels, embeddings
    # An identity, as the argument of a graph is on no device, which several processes want to know.
    labels = context.all_gather(tf.identity(labels), axis=0)

    @tf.custom_gradient
    def gather(own: tf.Tensor) -> tuple:
        counts = context.all_gather(tf.shape(own)[:1], axis=0)
        begin = tf.cumsum(counts, exclusive=True)[context.replica_id_in_sync_group]

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Not the sum over the replicas, all of which have the same: no need to ask them.
            return tf.reshape(upstream[begin : begin + tf.shape(own)[0]], tf.shape(own))

        return context.all_gather(own, axis=0), gradient

    return labels, gather(tf.convert_to_tensor(embeddings))


class WholeBatchLoss(tf.keras.losses.Loss):
    """A loss that is no mean over images, but of the batch that all replicas hold together.

    In a replica it gathers the batch, so that N replicas with B / N images each give the value
    and, summed over the replicas, the gradients of one device with B, in `model.fit` as in a loop
    of one's own. The value must not be divided by the number of replicas: its reduction is NONE.

    Args:
      function: from labels [batch, ...] and embeddings [batch, dim] to a scalar.
      name: shown in logs.
    """

    def __init__(
        self, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], name: str | None = None
    ) -> None:
        super().__init__(reduction=_NONE, name=name)
        self._function = function

    @tf.autograph.experimental.do_not_convert
    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of labels [batch, ...] and embeddings [batch, dim], a scalar."""
        return self._function(*gather_replicas(y_true, y_pred))


class _MarginLoss(WholeBatchLoss):
    """What losses with a margin and a distance share: arguments, see `TripletSemiHardLoss`."""

    _function_with_arguments: Callable[..., tf.Tensor]

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
                f"reduction {reduction!r}: expected {_NONE!r}, as there is no loss of an image"
            )
        margin = float(margin)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin {margin}; expected a number of 0 or more")
        check_distance(distance_metric)
        self._arguments = {"margin": margin, "distance_metric": distance_metric, **options}
        super().__init__(functools.partial(self._function_with_arguments, **self._arguments), name)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same loss; a function must be known to Keras."""
        distance = self._arguments["distance_metric"]
        if callable(distance):
            distance = tf.keras.saving.serialize_keras_object(distance)
        return {**super().get_config(), **self._arguments, "distance_metric": distance}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _MarginLoss:
        """Returns the loss whose `get_config` this is."""
        distance = config["distance_metric"]
        if isinstance(distance, dict):
            distance = tf.keras.saving.deserialize_keras_object(distance)
        return cls(**{**config, "distance_metric": distance})


@tf.keras.saving.register_keras_serializable(package="apparel_embed")
class TripletSemiHardLoss(_MarginLoss):
    """Triplet loss with semi-hard negatives: TFA's of the same name, without its cubic memory.

    See `semi_hard_triplet_loss`. Labels are items, [batch] or [batch, 1]: integers, or
    floating-point numbers that are not rounded (whole, and below 2**24 in float32).

    Args:
      margin: by how much a negative should be farther than a positive, 0 or more.
      distance_metric: "L2", "squared-L2", "angular" or a function from embeddings [batch, dim] to
        distances [batch, batch]; embeddings should have unit length for the named ones.
      name: shown in logs.
      reduction: NONE, the only one that a loss of pairs can have.

    Raises:
      ValueError: a margin below 0, an unknown distance, or another reduction.

    Example:
      >>> loss = TripletSemiHardLoss(margin=0.3)
      >>> embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
      >>> float(loss(tf.constant([7, 7, 8]), embeddings))
      0.6...
      >>> model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
      >>> model.compile("adam", loss=loss)
    """

    _function_with_arguments = staticmethod(semi_hard_triplet_loss)


@tf.keras.saving.register_keras_serializable(package="apparel_embed")
class TripletHardLoss(_MarginLoss):
    """Triplet loss with each anchor's farthest positive and nearest negative, as TFA's.

    See `hard_triplet_loss`; arguments and errors are those of `TripletSemiHardLoss`, and

    Args:
      soft: log(1 + exp(.)) instead of a margin.

    Example:
      >>> embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
      >>> float(TripletHardLoss(margin=0.3)(tf.constant([7, 7, 8]), embeddings))
      0.4...
    """

    _function_with_arguments = staticmethod(hard_triplet_loss)

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
    """Lifted structured loss, which weighs all negatives of a positive pair, as TFA's.

    See `lifted_structure_loss`; arguments and errors are those of `TripletSemiHardLoss`.

    Example:
      >>> embeddings = tf.constant([[1.0, 0.0], [0.8, 0.6], [0.96, 0.28]])
      >>> float(LiftedStructLoss(margin=0.3)(tf.constant([7, 7, 8]), embeddings)) > 0
      True
    """

    _function_with_arguments = staticmethod(lifted_structure_loss)
