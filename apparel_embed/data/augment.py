"""Augmentation as a pure function of images and random numbers.

Random numbers are drawn separately from the images, one row per image. So a batch can be drawn on
the host, split among replicas and augmented on the device. keras-cv's layers would draw from
stateful generators: a resumed training would see other images than an uninterrupted one. Here they
get the random numbers as an argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from apparel_embed.data.config import AugmentConfig

# Random numbers per image and augmentation. All are drawn, even for augmentations that are off, so
# switching one on does not change the others.
_DRAWS = {
    **{"flip": 1, "rotation": 1, "zoom": 1, "translation": 2},
    **{"brightness": 1, "contrast": 1, "saturation": 1, "hue": 1, "erase": 4},
}
_ENDS = dict(zip(_DRAWS, np.cumsum(list(_DRAWS.values())).tolist()))

# Images float32 [batch, height, width, 3] and random numbers float32 [batch, own draws], 0..1.
_Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Augmenter:
    """Augments batches of images.

    Examples:
      >>> augment = Augmenter(AugmentConfig(flip=True))
      >>> augment(tf.zeros([4, 32, 32, 3]), seed=tf.constant([1, 2])).shape
      TensorShape([4, 32, 32, 3])
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config
        self._changes = _changes(config)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Draws random numbers and calls `apply`; the same seed, int [2], gives the same result."""
        return self.apply(images, self.draw(seed, tf.shape(images)[0]))

    @staticmethod
    def draw(seed: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """Returns the random numbers for `count` images: float32 [count, draws], 0..1."""
        return tf.random.stateless_uniform([count, sum(_DRAWS.values())], seed)

    def apply(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Augments each image with its own random numbers, independently of the rest of the batch.

        Args:
          images: uint8 or float32 [batch, height, width, 3], values 0..255.
          draws: float32 [batch, draws], from `draw`.

        Returns:
          float32 of the same shape, values 0..255.
        """
        images = self._move(images, draws)
        for name, change in self._changes.items():
            images = change(images, _own(draws, name))
        return tf.clip_by_value(images, 0.0, 255.0)

    def move_boxes(self, boxes: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the positions of boxes after `apply` has augmented their images.

        Args:
          boxes: float32 [batch, n, 4]: x_min, y_min, x_max, y_max as fractions of width and height.
          draws: float32 [batch, draws], as given to `apply`.

        Returns:
          float32 of the same shape; boxes may extend beyond the image, which is 0 to 1.

        Raises:
          ValueError: if images are rotated, as rotated boxes are not supported.
        """
        if self._config.rotation:
            raise ValueError(
                f"rotation {self._config.rotation:g}: expected 0, as boxes cannot be rotated"
            )
        mirrored, zooms, shifts = self._movement(draws)
        x_min, y_min, x_max, y_max = tf.unstack(boxes, axis=-1)
        flips = mirrored[:, tf.newaxis]
        x_min, x_max = tf.where(flips, 1.0 - x_max, x_min), tf.where(flips, 1.0 - x_min, x_max)

        def moved(places: tf.Tensor, axis: int) -> tf.Tensor:
            return (places - 0.5) / zooms[:, tf.newaxis] + 0.5 + shifts[:, axis, tf.newaxis]

        return tf.stack([moved(x_min, 1), moved(y_min, 0), moved(x_max, 1), moved(y_max, 0)], -1)

    def _move(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        config = self._config
        if not (config.flip or config.zoom or config.translation):
            return tf.cast(images, tf.float32)
        return resample(images, *self._movement(draws))

    def _movement(self, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the arguments `mirrored`, `zooms` and `shifts` of `resample`."""
        config = self._config
        return (
            (_own(draws, "flip")[:, 0] < 0.5) & config.flip,
            1.0 + _both_ways(_own(draws, "zoom")[:, 0], config.zoom),
            _both_ways(_own(draws, "translation"), config.translation),
        )


def _own(draws: tf.Tensor, name: str) -> tf.Tensor:
    return draws[:, _ENDS[name] - _DRAWS[name] : _ENDS[name]]


def _both_ways(draws: tf.Tensor, strength: float) -> tf.Tensor:
    return strength * (2.0 * draws - 1.0)


def _changes(config: AugmentConfig) -> dict[str, _Change]:
    """Returns the augmentations that are on, in order, except flip, zoom and translation.

    keras-cv's layers do the work. The strengths they are made with only matter if a layer draws
    itself; their seed keeps them from requesting TensorFlow's global generator.
    """
    most = config.rotation / 180 * np.pi
    transformations: dict[str, Callable[[tf.Tensor, tf.Tensor], Any]] = {
        "rotation": lambda draws, _: {"angles": _both_ways(draws[:, 0], most)},
        "brightness": lambda draws, _: _both_ways(draws, 255 * config.brightness)[:, None, None],
        "contrast": lambda draws, _: 1.0 + _both_ways(draws, config.contrast)[:, None, None],
        # keras-cv's factor is 0 for grey, 0.5 for unchanged, 1 for full saturation.
        "saturation": lambda draws, _: (
            0.5 + _both_ways(draws[:, 0], 0.5 * min(config.saturation, 0.99))
        ),
        # keras-cv's hue shift is a fraction of the full circle.
        "hue": lambda draws, _: _both_ways(draws[:, 0], 0.5 * config.hue),
        "erase": lambda draws, shape: _rectangles(shape, draws, config.erase),
    }
    enabled = [name for name in transformations if getattr(config, name)]
    return {name: _change(name, transformations[name]) for name in enabled}


def _change(name: str, transform: Callable[[tf.Tensor, tf.Tensor], Any]) -> _Change:
    """Returns a function that augments images with a layer and given random numbers."""
    # Imported here because it takes seconds.
    from keras_cv import layers

    # float32 whatever the model's policy.
    layer = {
        # "nearest" extends both the white of a shop image and the background of a street image.
        "rotation": functools.partial(layers.RandomRotation, 1.0, fill_mode="nearest"),
        "brightness": functools.partial(layers.RandomBrightness, 1.0),
        "contrast": functools.partial(layers.RandomContrast, (0, 255), 1.0),
        "saturation": functools.partial(layers.RandomSaturation, 1.0),
        "hue": functools.partial(layers.RandomHue, 1.0, (0, 255)),
        "erase": functools.partial(layers.RandomCutout, 1.0, 1.0, "constant", 127.5),
    }[name](seed=1, dtype="float32")
    return lambda images, draws: layer.augment_images(
        images, transformations=transform(draws, tf.shape(images))
    )


def _rectangles(shape: tf.Tensor, draws: tf.Tensor, most: float) -> dict[str, tf.Tensor]:
    """Returns rectangles in keras-cv's format from random numbers [batch, 4] in 0..1."""
    height, width = tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)

    def pixels(values: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, tf.int32)

    return {
        "centers_x": pixels(draws[:, 0] * width),
        "centers_y": pixels(draws[:, 1] * height),
        "rectangles_height": pixels(tf.math.ceil(most * draws[:, 2] * height)),
        "rectangles_width": pixels(tf.math.ceil(most * draws[:, 3] * width)),
    }


def resample(
    images: tf.Tensor, mirrored: tf.Tensor, zooms: tf.Tensor, shifts: tf.Tensor
) -> tf.Tensor:
    """Mirrors images left to right, zooms them around their centre and shifts them, in one step.

    Bilinear, with edge pixels repeated beyond the edge. An image that is neither zoomed nor shifted
    keeps its values exactly. keras-cv's layers each apply a general projective transform, which
    takes ten times as long (64 px: 0.38 ms per image instead of 0.03) and blurs the image each
    time; here rows and columns are moved independently.

    Args:
      images: uint8 or float32 [batch, height, width, channels], the last three known.
      mirrored: bool [batch].
      zooms: float32 [batch], sides of the visible part as fractions of the image's; < 1 enlarges.
      shifts: float32 [batch, 2], down and to the right, as fractions of height and width.

    Returns:
      float32 of the same shape.
    """
    # XLA for GPUs needs libraries that many installations lack; a GPU is fast enough without it.
    compiled = not tf.config.list_physical_devices("GPU")
    work = _resample_compiled if compiled else _resample
    return work(images, mirrored, zooms, shifts)


def _resample(
    images: tf.Tensor, mirrored: tf.Tensor, zooms: tf.Tensor, shifts: tf.Tensor
) -> tf.Tensor:
    height, width, channels = images.shape[1:]
    low, high, share = _neighbours(_sources(height, zooms, shifts[:, 0]), height)
    # Whole rows: vectors of width * channels are contiguous in memory.
    rows = tf.reshape(images, [-1, height, width * channels])
    images = _between(
        tf.gather(rows, low, batch_dims=1), tf.gather(rows, high, batch_dims=1), share[:, :, None]
    )
    images = tf.reshape(images, [-1, height, width, channels])
    sources = _sources(width, zooms, shifts[:, 1])
    sources = tf.where(mirrored[:, None], width - 1.0 - sources, sources)
    low, high, share = _neighbours(sources, width)
    return _between(
        tf.gather(images, low, axis=2, batch_dims=1),
        tf.gather(images, high, axis=2, batch_dims=1),
        share[:, None, :, None],
    )


_resample_compiled = tf.function(_resample, jit_compile=True, autograph=False)


def _sources(size: int, zooms: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """Returns the source of each row or column: float32 [batch, size], 0 to size - 1."""
    middle = (size - 1) / 2
    places = tf.range(size, dtype=tf.float32) - middle
    sources = (places - shifts[:, None] * size) * zooms[:, None] + middle
    return tf.clip_by_value(sources, 0.0, size - 1.0)


def _neighbours(sources: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns int32 indices below and above each source, and float32 weights of the upper ones."""
    floors = tf.floor(sources)
    low = tf.cast(floors, tf.int32)
    return low, tf.minimum(low + 1, size - 1), sources - floors


def _between(low: tf.Tensor, high: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    low = tf.cast(low, tf.float32)
    return low + (tf.cast(high, tf.float32) - low) * share
