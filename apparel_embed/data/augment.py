"""Augmentation as a pure function of pictures and random numbers.

The numbers are drawn apart from the pictures, a row for each, so that a batch can be drawn on the
host, split among replicas and augmented where it is trained on. keras-cv's layers would draw from
stateful generators, by which a resumed training would see other pictures than one never
interrupted; here they are told what to do instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from apparel_embed.common.settings import setting
from apparel_embed.data.resample import resample


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Strength of each augmentation; 0 switches it off.

    Example:
      >>> AugmentConfig(flip=False, rotation=10.0, erase=0.3).zoom
      0.1
    """

    flip: bool = setting(True, "mirror half of the pictures")
    rotation: float = setting(
        0.0, "largest angle either way, in degrees; 0 is off", 0.0, 180.0, seldom=True
    )
    zoom: float = setting(
        0.1, "largest change of size either way, as a fraction of the side; 0 is off", 0.0, 0.9
    )
    translation: float = setting(
        0.1, "largest shift either way, as a fraction of the side; 0 is off", 0.0, 0.9
    )
    brightness: float = setting(
        0.0,
        "largest change either way, as a fraction of the value range; 0 is off",
        0.0,
        1.0,
        seldom=True,
    )
    contrast: float = setting(
        0.0, "largest relative change either way; 0 is off", 0.0, 1.0, seldom=True
    )
    saturation: float = setting(
        0.0, "largest change either way, 1 from grey to full; 0 is off", 0.0, 1.0, seldom=True
    )
    hue: float = setting(
        0.0, "largest turn either way, 1 is half the colour circle; 0 is off", 0.0, 1.0, seldom=True
    )
    erase: float = setting(
        0.0,
        "largest side of an erased rectangle, as a fraction of the side; 0 is off",
        0.0,
        1.0,
        seldom=True,
    )


# Random numbers of a picture for each augmentation. All are drawn, also for what is switched off:
# one augmentation more does not change the others.
_DRAWS = {
    "flip": 1,
    "rotation": 1,
    "zoom": 1,
    "translation": 2,
    "brightness": 1,
    "contrast": 1,
    "saturation": 1,
    "hue": 1,
    "erase": 4,
}
_ENDS = dict(zip(_DRAWS, np.cumsum(list(_DRAWS.values())).tolist()))

# Images float32 [batch, height, width, 3] and random numbers float32 [batch, own draws], 0..1.
_Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Augmenter:
    """Augments batches of pictures.

    Example:
      >>> augment = Augmenter(AugmentConfig(flip=True))
      >>> augment(tf.zeros([4, 32, 32, 3]), seed=tf.constant([1, 2])).shape
      TensorShape([4, 32, 32, 3])
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._config = config
        self._changes = _changes(config)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments a batch.

        Args:
          images: uint8 or float32 [batch, height, width, 3], values 0..255.
          seed: int [2]; the same seed gives the same result.

        Returns:
          float32 of the same shape, values 0..255.
        """
        return self.apply(images, self.draw(seed, tf.shape(images)[0]))

    @staticmethod
    def draw(seed: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
        """Returns the random numbers that so many pictures are augmented by: a row for each."""
        return tf.random.stateless_uniform([count, sum(_DRAWS.values())], seed)

    def apply(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Augments pictures, each by its own random numbers, whatever others are beside it.

        Args:
          images: uint8 or float32 [batch, height, width, 3], values 0..255.
          draws: float32 [batch, ...], made by `draw`.

        Returns:
          float32 of the same shape, values 0..255.
        """
        images = self._move(images, draws)
        for name, change in self._changes.items():
            images = change(images, _own(draws, name))
        return tf.clip_by_value(images, 0.0, 255.0)

    def _move(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        config = self._config
        if not (config.flip or config.zoom or config.translation):
            return tf.cast(images, tf.float32)
        return resample(
            images,
            (_own(draws, "flip")[:, 0] < 0.5) & config.flip,
            1.0 + _both_ways(_own(draws, "zoom")[:, 0], config.zoom),
            _both_ways(_own(draws, "translation"), config.translation),
        )


def _own(draws: tf.Tensor, name: str) -> tf.Tensor:
    return draws[:, _ENDS[name] - _DRAWS[name] : _ENDS[name]]


def _both_ways(draws: tf.Tensor, strength: float) -> tf.Tensor:
    """Maps numbers in 0..1 to -strength..strength."""
    return strength * (2.0 * draws - 1.0)


def _changes(config: AugmentConfig) -> dict[str, _Change]:
    """Returns what is switched on beside mirroring, zooming and shifting, in its order.

    keras-cv's layers do the work. What a layer is made with only says how strong it might be if it
    drew itself; its seed keeps it from asking for TensorFlow's global generator.
    """
    changed = (config.rotation, config.brightness, config.contrast, config.saturation)
    if not any((*changed, config.hue, config.erase)):
        return {}
    # Here, as it brings along what takes seconds at every start.
    from keras_cv import layers

    # float32 whatever the policy of the model.
    same = {"seed": 1, "dtype": "float32"}
    changes: dict[str, _Change] = {}
    if config.rotation:
        # "nearest" continues both the white of a shop picture and the background of a street one.
        rotation = layers.RandomRotation(1.0, fill_mode="nearest", **same)
        most = config.rotation / 180 * np.pi
        changes["rotation"] = lambda images, draws: rotation.augment_images(
            images, transformations={"angles": _both_ways(draws[:, 0], most)}
        )
    if config.brightness:
        brightness = layers.RandomBrightness(1.0, **same)
        changes["brightness"] = lambda images, draws: brightness.augment_images(
            images, transformations=_both_ways(draws, 255 * config.brightness)[:, None, None]
        )
    if config.contrast:
        contrast = layers.RandomContrast(value_range=(0, 255), factor=1.0, **same)
        changes["contrast"] = lambda images, draws: contrast.augment_images(
            images, transformations=1.0 + _both_ways(draws, config.contrast)[:, None, None]
        )
    if config.saturation:
        saturation = layers.RandomSaturation(1.0, **same)
        # keras-cv's factor is 0 for grey, 0.5 for unchanged, 1 for full saturation.
        most_saturated = 0.5 * min(config.saturation, 0.99)
        changes["saturation"] = lambda images, draws: saturation.augment_images(
            images, transformations=0.5 + _both_ways(draws[:, 0], most_saturated)
        )
    if config.hue:
        hue = layers.RandomHue(1.0, value_range=(0, 255), **same)
        # keras-cv turns by parts of the whole circle.
        changes["hue"] = lambda images, draws: hue.augment_images(
            images, transformations=_both_ways(draws[:, 0], 0.5 * config.hue)
        )
    if config.erase:
        cutout = layers.RandomCutout(1.0, 1.0, fill_mode="constant", fill_value=127.5, **same)
        changes["erase"] = lambda images, draws: cutout.augment_images(
            images, transformations=_rectangles(tf.shape(images), draws, config.erase)
        )
    return changes


def _rectangles(shape: tf.Tensor, draws: tf.Tensor, most: float) -> dict[str, tf.Tensor]:
    """Returns rectangles as keras-cv takes them, from numbers [batch, 4] in 0..1."""
    height, width = tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)

    def pixels(values: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, tf.int32)

    return {
        "centers_x": pixels(draws[:, 0] * width),
        "centers_y": pixels(draws[:, 1] * height),
        "rectangles_height": pixels(tf.math.ceil(most * draws[:, 2] * height)),
        "rectangles_width": pixels(tf.math.ceil(most * draws[:, 3] * width)),
    }
