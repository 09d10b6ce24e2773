"""Pooling: from feature maps to one feature vector per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from apparel_embed.common.keras_version import require_keras_2

require_keras_2()

POOLED, NORM, POOLING = "pooled", "pooled_norm", "pooling"
"""Names of layers in pooling: the concatenated features, their batch norm, and the result."""
_LEVELS_OF_COLOUR = 4
# Side in pixels of the squares whose mean colour is counted.
_BLOCK = 2
# Added to shares because the square root has an infinite slope at 0.
_LEAST_SHARE = 1e-5
# Root mean square length of each standardised part of the pyramid's features.
_PART_LENGTH = 4.0


@tf.keras.utils.register_keras_serializable("apparel_embed")
class GeMPooling(tf.keras.layers.Layer):
    """Generalised-mean pooling over height and width, with a learnt exponent.

    `(mean x^p)^(1/p)` of the positive part of x, per channel (Radenovic et al. 2018, "Fine-tuning
    CNN Image Retrieval with No Human Annotation"). p = 1 is the average, large p the maximum.
    """

    def __init__(self, initial_exponent: float = 3.0, epsilon: float = 1e-6, **kwargs) -> None:
        super().__init__(**kwargs)
        self.initial_exponent = initial_exponent
        self.epsilon = epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the exponent."""
        self.exponent = self.add_weight(
            "exponent", (), initializer=tf.keras.initializers.Constant(self.initial_exponent)
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps a feature map [batch, h, w, c] to [batch, c]."""
        powers = tf.pow(tf.maximum(inputs, self.epsilon), self.exponent)
        return tf.pow(tf.reduce_mean(powers, axis=(1, 2)), 1.0 / self.exponent)

    def get_config(self) -> dict:
        """Returns the arguments of the constructor."""
        own = {"initial_exponent": self.initial_exponent, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@tf.keras.utils.register_keras_serializable("apparel_embed")
class ColourHistogram(tf.keras.layers.Layer):
    """The square roots of a joint RGB histogram, which a backbone trained on objects loses.

    Each channel has 4 levels, and a colour between two of them counts towards both, which keeps the
    histogram continuous with a gradient. Euclidean distances between square roots of histograms
    are Hellinger distances (Arandjelovic and Zisserman 2012, "Three things everyone should know to
    improve object retrieval"), which a large white background does not dominate.

    Examples:
      >>> ColourHistogram()(tf.zeros([2, 32, 32, 3])).shape
      TensorShape([2, 64])
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps images [batch, h, w, 3] with values 0..255 to [batch, 64]."""
        colours = tf.nn.avg_pool2d(inputs, _BLOCK, _BLOCK, "VALID")
        colours = tf.reshape(colours, [tf.shape(colours)[0], -1, 3])
        # The centres of levels are 32, 96, 160 and 224; colours beyond the outer two are clipped.
        levels = tf.clip_by_value(colours / 64.0 - 0.5, 0.0, _LEVELS_OF_COLOUR - 1.0)
        centres = tf.range(_LEVELS_OF_COLOUR, dtype=levels.dtype)
        red, green, blue = tf.unstack(
            tf.nn.relu(1.0 - tf.abs(levels[..., tf.newaxis] - centres)), axis=2
        )
        counts = tf.einsum("bni,bnj,bnk->bijk", red, green, blue)
        pixels = tf.cast(tf.shape(colours)[1], counts.dtype)
        shares = tf.reshape(counts, [-1, _LEVELS_OF_COLOUR**3]) / pixels
        return tf.sqrt(shares + _LEAST_SHARE)


def pyramid_features(images: tf.Tensor, levels: Sequence[tf.Tensor], **kwargs: Any) -> tf.Tensor:
    """Returns the means of all levels of a backbone and the image's colours, concatenated.

    Fine prints, cuts and colours distinguish two garments of one kind, and a backbone's last level
    has lost much of them. Every part is standardised over the batch, as batch norm does, and has
    the same weight whatever its length.

    Args:
      images: Keras tensor [batch, h, w, 3], values 0..255.
      levels: Keras tensors [batch, h, w, c] of the backbone, from fine to coarse.
      **kwargs: passed to every layer, such as its dtype.
    """
    pooled = [
        tf.keras.layers.GlobalAveragePooling2D(name=f"pooled_level{number}", **kwargs)(level)
        for number, level in enumerate(levels, start=1)
    ]
    parts = [*pooled, ColourHistogram(name="pooled_colours", **kwargs)(images)]
    together = tf.keras.layers.Concatenate(name=POOLED, **kwargs)(parts)
    norm = tf.keras.layers.BatchNormalization(center=False, scale=False, name=NORM, **kwargs)
    lengths = [part.shape[-1] for part in parts]
    shares = np.repeat([_PART_LENGTH / length**0.5 for length in lengths], lengths)
    return tf.keras.layers.Rescaling(shares.tolist(), name=POOLING, **kwargs)(norm(together))
