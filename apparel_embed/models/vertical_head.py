"""The vertical head: from a model's pooled features to the probabilities of verticals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.special import softmax

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path

_FILE = "vertical_head.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class VerticalHead:
    """A linear classifier of verticals; its scores are `softmax(features @ weights + bias)`.

    Attributes:
      verticals: names in the order of the scores, without line breaks.
      weights: float32 [features, verticals].
      bias: float32 [verticals].
      routing_confidence: minimum score at which a search covers only the predicted vertical; None
        for never.
    """

    verticals: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray
    routing_confidence: float | None = None

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most probable vertical of pooled features [n, features] and its score.

        Returns:
          str [n], and float32 [n] in 0 to 1.
        """
        scores = softmax(features @ self.weights + self.bias, axis=1)
        names = np.array(self.verticals, dtype=object)
        return names[scores.argmax(axis=1)], scores.max(axis=1)

    def save(self, directory: Path) -> None:
        """Writes the head to a directory."""
        routing = np.nan if self.routing_confidence is None else self.routing_confidence
        fields = {"verticals": np.array(self.verticals), "weights": self.weights, "bias": self.bias}
        with atomic_path(directory / _FILE) as temporary, open(temporary, "wb") as file:
            np.savez(file, **fields, routing_confidence=routing)

    @classmethod
    def load(cls, directory: Path) -> VerticalHead:
        """Reads a head that `save` wrote.

        Raises:
          UserError: if the directory does not contain a head, or it cannot be read.
        """
        path = directory / _FILE
        try:
            with np.load(path, allow_pickle=False) as stored:
                verticals = tuple(map(str, stored["verticals"]))
                routing = float(stored["routing_confidence"])
                # `save` writes None as NaN.
                confidence = None if np.isnan(routing) else routing
                return cls(verticals, stored["weights"], stored["bias"], confidence)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: expected a vertical head ({error})") from error


def feature_model(model: tf.keras.Model) -> tf.keras.Model:
    """Returns an embedding model up to pooling, whose features are a vertical head's input."""
    return tf.keras.Model(model.input, model.get_layer("pooling").output, name="features")
