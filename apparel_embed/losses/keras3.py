"""TensorFlow Addons' triplet losses for Keras 3 models on the TensorFlow backend.

Needs only TensorFlow 2.16 or later with its Keras 3, and none of this package's dependencies:
`pip install --no-deps apparel_embed`. Everything else in this package is for Keras 2.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from apparel_embed.losses.distances import Distance
from apparel_embed.losses.margin import MarginArguments
from apparel_embed.losses.replicas import gather_replicas
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

if not keras.__version__.startswith("3."):
    raise ImportError(
        f"apparel_embed.losses.keras3 expected Keras 3, got {keras.__version__}; "
        "apparel_embed.losses.keras has the same losses for Keras 2"
    )


class _MarginLoss(MarginArguments, keras.losses.Loss):
    """Base of the losses: keeps their arguments and computes over the batch of all replicas."""

    _saving = keras.saving

    def __init__(
        self,
        margin: float = 1.0,
        distance_metric: Distance = "L2",
        name: str | None = None,
        **options: bool,
    ) -> None:
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                f"{type(self).__name__} expected Keras 3's backend tensorflow, "
                f"got {keras.backend.backend()}"
            )
        super().__init__(name=name)
        self._function = self.keep_arguments(margin, distance_metric, options)

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the loss of the batch; unlike Keras' method, does not cast labels to float.

        Args:
          y_true: labels [batch] or [batch, 1].
          y_pred: embeddings [batch, dim].
          sample_weight: must be None.

        Raises:
          ValueError: if weights are given: a loss over pairs cannot weight images.
        """
        if sample_weight is not None:
            raise ValueError(
                f"{self.name}: expected no sample_weight, as there is no loss per image"
            )
        return self.call(tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred))

    @tf.autograph.experimental.do_not_convert
    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the scalar loss of labels [batch, ...] and embeddings [batch, dim]."""
        loss = self._function(*gather_replicas(y_true, y_pred))
        # Keras sums losses and gradients over the replicas. Each replica has the loss of the whole
        # batch, but only the gradient of its own part.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return loss - tf.stop_gradient(loss - loss / replicas) if replicas > 1 else loss

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments to recreate the loss; a function must be registered with Keras."""
        config = super().get_config()
        del config["reduction"]
        return config


@keras.saving.register_keras_serializable(package="apparel_embed")
class TripletSemiHardLoss(_MarginLoss):
    """Triplet loss with semi-hard negatives: TFA's of the same name, without its cubic memory.

    See `semi_hard_triplet_loss`.

    Args:
      margin: how much farther a negative should be than a positive, 0 or more.
      distance_metric: "L2", "squared-L2", "angular" or a function from embeddings [batch, dim] to
        distances [batch, batch]. Embeddings should have unit length with a named distance.
      name: shown in logs.

    Raises:
      ValueError: if the margin is below 0, the distance unknown, or the backend not TensorFlow.

    Examples:
      import keras
      from apparel_embed.losses.keras3 import TripletSemiHardLoss

      model = keras.Sequential([keras.layers.Dense(16), keras.layers.UnitNormalization()])
      model.compile("adam", loss=TripletSemiHardLoss(margin=0.3))
    """

    function_with_arguments = staticmethod(semi_hard_triplet_loss)


@keras.saving.register_keras_serializable(package="apparel_embed")
class TripletHardLoss(_MarginLoss):
    """Triplet loss with each anchor's farthest positive and nearest negative, as in TFA.

    See `hard_triplet_loss`. Arguments and errors are those of `TripletSemiHardLoss`, plus `soft`.

    Args:
      soft: whether to use log(1 + exp(.)) instead of a margin.
    """

    function_with_arguments = staticmethod(hard_triplet_loss)

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: Distance = "L2",
        name: str | None = None,
    ) -> None:
        super().__init__(margin, distance_metric, name, soft=soft)


@keras.saving.register_keras_serializable(package="apparel_embed")
class LiftedStructLoss(_MarginLoss):
    """Lifted structured loss, which weighs all negatives of a positive pair, as in TFA.

    See `lifted_structure_loss`. Arguments and errors are those of `TripletSemiHardLoss`.
    """

    function_with_arguments = staticmethod(lifted_structure_loss)
