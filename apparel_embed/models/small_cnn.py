"""A small convolutional network that trains from scratch in seconds."""

from __future__ import annotations

import tensorflow as tf


def small_cnn_backbone(
    input_shape: tuple[int, int, int], filters: tuple[int, ...] = (32, 64, 128, 192)
) -> tf.keras.Model:
    """Returns a small residual CNN.

    Each stage halves height and width by a strided 3x3 convolution; all but the first, where
    pictures are large, add a residual one. Depth pays more than width: a student must fit as many
    functions as there are specialists.

    Args:
      input_shape: height, width and channels of the input, in pixels.
      filters: channels of each stage.

    Returns:
      A functional model from images to a feature map [batch, h, w, filters[-1]].
    """
    inputs = tf.keras.Input(input_shape)
    x = inputs
    for stage, channels in enumerate(filters):
        x = _convolution(x, channels, strides=2, name=f"stage{stage}_down")
        x = tf.keras.layers.ReLU(name=f"stage{stage}_down_relu")(x)
        if stage > 0:
            residual = _convolution(x, channels, strides=1, name=f"stage{stage}_residual")
            x = tf.keras.layers.Add(name=f"stage{stage}_add")([x, residual])
            x = tf.keras.layers.ReLU(name=f"stage{stage}_relu")(x)
    return tf.keras.Model(inputs, x, name="small_cnn")


def small_cnn_levels(backbone: tf.keras.Model) -> list[str]:
    """Returns the names of the layers that end the stages of a `small_cnn_backbone`."""
    relus = [layer.name for layer in backbone.layers if layer.name.endswith("relu")]
    # The strided convolution of a stage has a ReLU of its own, and the first stage no other.
    return [name for name in relus if not name.endswith("_down_relu") or name == relus[0]]


def _convolution(x: tf.Tensor, channels: int, *, strides: int, name: str) -> tf.Tensor:
    x = tf.keras.layers.Conv2D(
        channels, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return tf.keras.layers.BatchNormalization(name=f"{name}_norm")(x)
