"""From image bytes to model input: the same code for training, evaluation and serving."""

from __future__ import annotations

import tensorflow as tf


def decode_image(image_bytes: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, GIF (first frame) or BMP image to uint8 [height, width, 3], RGB."""
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    image.set_shape([None, None, 3])
    return image


def fit_square(images: tf.Tensor, size: int) -> tf.Tensor:
    """Scales images to fit a white square, centred and with their aspect ratio kept.

    The result is rounded to uint8. An image kept decoded in memory and one decoded for serving
    therefore give the same bits.

    Args:
      images: uint8 [batch, height, width, 3] or [height, width, 3].
      size: side of the square in pixels.

    Returns:
      uint8 [batch, size, size, 3] or [size, size, 3].
    """
    top, left, height, width = place_in_square(tf.shape(images)[-3:-1], size)
    pixels = _resize(images, height, width)
    paddings = [[top, size - height - top], [left, size - width - left], [0, 0]]
    if images.shape.rank == 4:
        paddings = [[0, 0], *paddings]
    padded = tf.pad(pixels, paddings, constant_values=tf.constant(255, tf.uint8))
    padded.set_shape([*images.shape[:-3], size, size, 3])
    return padded


def fit_corner(image: tf.Tensor, side: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Puts an image into the upper left corner of a square, shrunk if it is larger.

    Args:
      image: uint8 [height, width, 3].
      side: side of the square in pixels.

    Returns:
      uint8 [side, side, 3], and the height and width of the image in it, int32 [2].
    """
    sides = tf.shape(image)[:2]
    _, _, height, width = place_in_square(sides, side)
    image = tf.cond(
        tf.reduce_all(sides <= side), lambda: image, lambda: _resize(image, height, width)
    )
    sides = tf.shape(image)[:2]
    square = tf.pad(image, [[0, side - sides[0]], [0, side - sides[1]], [0, 0]])
    square.set_shape([side, side, 3])
    return square, sides


def place_in_square(sides: tf.Tensor, size: int) -> tuple[tf.Tensor, ...]:
    """Returns where `fit_square` puts an image in its square: top, left, height and width.

    Args:
      sides: height and width of the image, int32 [2].
      size: side of the square in pixels.
    """
    longest = tf.cast(tf.reduce_max(sides), tf.float32)
    exact = tf.cast(sides, tf.float32) * (size / longest)
    height, width = tf.unstack(tf.clip_by_value(tf.cast(tf.round(exact), tf.int32), 1, size))
    return (size - height) // 2, (size - width) // 2, height, width


def _resize(images: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns resized images, rounded to uint8."""
    resized = tf.image.resize(images, [height, width], antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def decode_to_square(image_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes an image and fits it into a white square: uint8 [size, size, 3]."""
    return fit_square(decode_image(image_bytes), size)
