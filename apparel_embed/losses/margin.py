"""Arguments of losses with a margin, shared by the Keras 2 and Keras 3 losses."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from apparel_embed.losses.distances import Distance, check_distance


class MarginArguments:
    """Mixin that checks, keeps and serialises a loss's arguments; list it before Keras' Loss.

    Attributes:
      function_with_arguments: maps labels, embeddings and these arguments to the scalar loss.
    """

    function_with_arguments: Callable[..., tf.Tensor]
    _saving: Any
    _arguments: dict[str, Any]

    def keep_arguments(
        self, margin: float, distance_metric: Distance, options: dict[str, bool]
    ) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Returns the function with these arguments bound, from labels and embeddings to a scalar.

        Args:
          margin: how much farther a negative should be than a positive, 0 or more.
          distance_metric: a name in `DISTANCES`, or a function from embeddings to distances.
          options: further arguments of the function.

        Raises:
          ValueError: if the margin is below 0 or the distance unknown.
        """
        margin = float(margin)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin {margin}; expected a number of 0 or more")
        check_distance(distance_metric)
        self._arguments = {"margin": margin, "distance_metric": distance_metric, **options}
        return functools.partial(self.function_with_arguments, **self._arguments)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments to recreate the loss; a function must be registered with Keras."""
        distance = self._arguments["distance_metric"]
        if callable(distance):
            distance = self._saving.serialize_keras_object(distance)
        config = super().get_config()  # type: ignore[misc]
        return {**config, **self._arguments, "distance_metric": distance}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MarginArguments:
        """Returns the loss that `get_config` describes."""
        distance = config["distance_metric"]
        if isinstance(distance, dict):
            distance = cls._saving.deserialize_keras_object(distance)
        return cls(**{**config, "distance_metric": distance})
