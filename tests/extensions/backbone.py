"""A backbone with a single convolution."""

import tensorflow as tf

from apparel_embed.models.backbones import Backbone


def build(shape):
    inputs = tf.keras.Input(shape)
    outputs = tf.keras.layers.Conv2D(6, 4, strides=4, activation="relu", name="only")(inputs)
    return tf.keras.Model(inputs, outputs, name="one_convolution")


BACKBONE = Backbone(build, levels=lambda _: ["only"])
