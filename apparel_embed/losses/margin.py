"""Arguments of losses with a margin, which Keras 2 and Keras 3 keep in the same way."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from apparel_embed.losses.distances import Distance, check_distance


class MarginArguments:
    """Checks, keeps and serialises the arguments of a loss; stands before Keras' Loss as a base.

    Attributes:
      function_with_arguments: the loss, from labels, embeddings and these arguments to a scalar.
    """

    function_with_arguments: Callable[..., tf.Tensor]
    _saving: Any
    _arguments: dict[str, Any]

    def keep_arguments(
        self, margin: float, distance_metric: Distance, options: dict[str, bool]
    ) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Returns the loss with these arguments, from labels and embeddings to a scalar.

        Args:
          margin: by how much a negative should be farther than a positive, 0 or more.
          distance_metric: a name of `DISTANCES`, or a function from embeddings to distances.
          options: further arguments of the function.

        Raises:
          ValueError: a margin below 0, or an unknown distance.
        """
        margin = float(margin)
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin {margin}; expected a number of 0 or more")
        check_distance(distance_metric)
        self._arguments = {"margin": margin, "distance_metric": distance_metric, **options}
        return functools.partial(self.function_with_arguments, **self._arguments)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make the same loss; a function must be known to Keras."""
        distance = self._arguments["distance_metric"]
        if callable(distance):
            distance = self._saving.serialize_keras_object(distance)
        config = super().get_config()  # type: ignore[misc]
        return {**config, **self._arguments, "distance_metric": distance}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MarginArguments:
        """Returns the loss whose `get_config` this is."""
        distance = config["distance_metric"]
        if isinstance(distance, dict):
            distance = cls._saving.deserialize_keras_object(distance)
        return cls(**{**config, "distance_metric": distance})
