"""The triplet losses for Keras 3 models on TensorFlow's backend, as TensorFlow Addons had them.

Needs TensorFlow 2.16 or later with its Keras 3, and nothing else of what this package installs:
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
    """What the losses share: arguments, and that they are of the whole batch on all replicas."""

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
                f"{type(self).__name__} works on Keras 3's backend tensorflow; "
                f"got {keras.backend.backend()}"
            )
        super().__init__(name=name)
        self._function = self.keep_arguments(margin, distance_metric, options)

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the loss of the batch; unlike Keras', does not turn labels into floats.

        Args:
          y_true: labels [batch] or [batch, 1].
          y_pred: embeddings [batch, dim].
          sample_weight: expected None.

        Raises:
          ValueError: if there are weights: a loss of pairs has none for an image.
        """
        if sample_weight is not None:
            raise ValueError(
                f"{self.name}: expected no sample_weight, as there is no loss of an image"
            )
        return self.call(tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred))

    @tf.autograph.experimental.do_not_convert
    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of labels [batch, ...] and embeddings [batch, dim], a scalar."""
        loss = self._function(*gather_replicas(y_true, y_pred))
        # Keras sums losses and gradients over the replicas. Each has the loss of the whole batch,
        # but the gradient of its own part.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return loss - tf.stop_gradient(loss - loss / replicas) if replicas > 1 else loss

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same loss; a function must be known to Keras."""
        config = super().get_config()
        del config["reduction"]
        return config


@keras.saving.register_keras_serializable(package="apparel_embed")
class TripletSemiHardLoss(_MarginLoss):
    """Triplet loss with semi-hard negatives: TFA's of the same name, without its cubic memory.

    See `semi_hard_triplet_loss`.

    Args:
      margin: by how much a negative should be farther than a positive, 0 or more.
      distance_metric: "L2", "squared-L2", "angular" or a function from embeddings [batch, dim] to
        distances [batch, batch]; embeddings should have unit length for the named ones.
      name: shown in logs.

    Raises:
      ValueError: a margin below 0, an unknown distance, or another backend than TensorFlow.

    Examples:
      import keras
      from apparel_embed.losses.keras3 import TripletSemiHardLoss

      model = keras.Sequential([keras.layers.Dense(16), keras.layers.UnitNormalization()])
      model.compile("adam", loss=TripletSemiHardLoss(margin=0.3))
    """

    function_with_arguments = staticmethod(semi_hard_triplet_loss)


@keras.saving.register_keras_serializable(package="apparel_embed")
class TripletHardLoss(_MarginLoss):
    """Triplet loss with each anchor's farthest positive and nearest negative, as TFA's.

    See `hard_triplet_loss`; arguments and errors are those of `TripletSemiHardLoss`, and

    Args:
      soft: log(1 + exp(.)) instead of a margin.
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
    """Lifted structured loss, which weighs all negatives of a positive pair, as TFA's.

    See `lifted_structure_loss`; arguments and errors are those of `TripletSemiHardLoss`.
    """

    function_with_arguments = staticmethod(lifted_structure_loss)
