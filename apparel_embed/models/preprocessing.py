"""From picture bytes to model input: one code for training, evaluation and serving."""

from __future__ import annotations

import tensorflow as tf


def decode_picture(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes one JPEG, PNG, GIF (first frame) or BMP: uint8 [height, width, 3], RGB."""
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def fit_square(images: tf.Tensor, size: int) -> tf.Tensor:
    """Scales pictures to fit a white square, shape kept and centred.

    The result is rounded to uint8, so that a picture kept decoded in memory and one decoded
    for serving give the same bits.

    Args:
      images: uint8 [batch, height, width, 3] or [height, width, 3].
      size: side of the square in pixels.

    Returns:
      uint8 [batch, size, size, 3] or [size, size, 3].
    """
    height, width = tf.unstack(tf.shape(images)[-3:-1])
    longest = tf.cast(tf.maximum(height, width), tf.float32)

    def scaled(side: tf.Tensor) -> tf.Tensor:
        exact = tf.cast(side, tf.float32) * (size / longest)
        return tf.clip_by_value(tf.cast(tf.round(exact), tf.int32), 1, size)

    target_height, target_width = scaled(height), scaled(width)
    resized = tf.image.resize(images, [target_height, target_width], antialias=True)
    pixels = tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)
    top, left = (size - target_height) // 2, (size - target_width) // 2
    paddings = [[top, size - target_height - top], [left, size - target_width - left], [0, 0]]
    if images.shape.rank == 4:
        paddings = [[0, 0], *paddings]
    padded = tf.pad(pixels, paddings, constant_values=tf.constant(255, tf.uint8))
    padded.set_shape([*images.shape[:-3], size, size, 3])
    return padded


def decode_to_square(image_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes one image and fits it into a white square: uint8 [size, size, 3]."""
    return fit_square(decode_picture(image_bytes), size)
