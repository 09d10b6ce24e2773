"""A small convolutional network that trains from scratch in seconds."""

from __future__ import annotations

import tensorflow as tf


def small_cnn_backbone(
    input_shape: tuple[int, int, int], filters: tuple[int, ...] = (32, 64, 128, 192)
) -> tf.keras.Model:
    """Returns a plain CNN: per stage a strided 3x3 convolution, batch norm and ReLU.

    Args:
      input_shape: height, width and channels of the input, in pixels.
      filters: channels of each stage; every stage halves height and width.

    Returns:
      A functional model from images to a feature map [batch, h, w, filters[-1]].
    """
    inputs = tf.keras.Input(input_shape)
    x = inputs
    for stage, channels in enumerate(filters):
        x = tf.keras.layers.Conv2D(
            channels, 3, strides=2, padding="same", use_bias=False, name=f"stage{stage}_conv"
        )(x)
        x = tf.keras.layers.BatchNormalization(name=f"stage{stage}_norm")(x)
        x = tf.keras.layers.ReLU(name=f"stage{stage}_relu")(x)
    return tf.keras.Model(inputs, x, name="small_cnn")
