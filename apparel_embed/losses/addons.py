"""TensorFlow Addons' own losses. The only module that uses TFA, which is no longer maintained."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from typing import TYPE_CHECKING

from apparel_embed.losses.config import LossConfig

if TYPE_CHECKING:
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class AddonsLossConfig(LossConfig):
    """A loss of TensorFlow Addons, whose last release runs on Python 3.9 to 3.11.

    Raises:
      ValueError: if TensorFlow Addons is not installed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not has_addons():
            raise ValueError(
                f"loss {self.name!r} needs TensorFlow Addons, which is not installed; its last "
                "release runs on Python 3.9 to 3.11. 'semi_hard' gives the same values."
            )


def has_addons() -> bool:
    """Returns whether TensorFlow Addons is installed; does not import it."""
    return importlib.util.find_spec("tensorflow_addons") is not None


def addons_semi_hard_triplet_loss(
    labels: tf.Tensor, embeddings: tf.Tensor, margin: float, distance_metric: str
) -> tf.Tensor:
    """Returns TFA's semi-hard triplet loss, for comparison.

    Allocates a tensor of batch * batch * batch numbers and is NaN for a batch without positives.

    Args:
      labels: int [batch], item of each image.
      embeddings: float [batch, dim].
      margin: how much farther a negative should be than a positive.
      distance_metric: "L2", "squared-L2" or "angular".

    Returns:
      A scalar with the dtype of the embeddings.

    Raises:
      ImportError: if TensorFlow Addons is not installed.
    """
    with warnings.catch_warnings():
        # TFA warns about its end of life on every import.
        warnings.simplefilter("ignore")
        import tensorflow_addons as tfa
    return tfa.losses.triplet_semihard_loss(labels, embeddings, margin, distance_metric)
