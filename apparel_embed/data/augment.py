"""Augmentation by keras-cv's batched layers, as a pure function of pictures and seed.

keras-cv's layers draw from stateful generators, so that a resumed training would see other
pictures than one never interrupted. Here the layers draw from stateless random numbers instead:
the same pictures and the same seed give the same result, in any process and at any step.
"""

from __future__ import annotations

import dataclasses

import keras_cv
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Strength of each augmentation; 0 switches it off.

    Attributes:
      flip: whether half of the pictures are mirrored left to right.
      rotation: largest angle either way, in degrees.
      zoom: largest change of size either way, as a fraction of the side.
      translation: largest shift either way, as a fraction of the side.
      brightness: largest change either way, as a fraction of the value range.
      contrast: largest relative change either way.
      saturation: largest change either way; 1 goes from grey to full saturation.
      hue: largest turn either way; 1 is half the colour circle.
      erase: largest side of an erased rectangle, as a fraction of the side.
    """

    flip: bool = True
    rotation: float = 0.0
    zoom: float = 0.1
    translation: float = 0.1
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0


class _Randomness:
    """Stateless random numbers with the call that keras-cv's layers make of their generator.

    `seed` is set, while a graph is traced, to the tensor from which the next numbers derive.
    """

    def __init__(self) -> None:
        self.seed: tf.Tensor | None = None
        self._draws = 0

    def start(self, seed: tf.Tensor) -> None:
        self.seed = seed
        self._draws = 0

    def uniform(self, shape, minval=0, maxval=1, dtype=tf.float32):
        self._draws += 1
        seed = tf.random.experimental.stateless_fold_in(self.seed, self._draws)
        return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)


class _Factor(keras_cv.core.FactorSampler):
    """A factor drawn uniformly from [lower, upper] out of a `_Randomness`."""

    def __init__(self, randomness: _Randomness, lower: float, upper: float) -> None:
        self._randomness = randomness
        self._lower = lower
        self._upper = upper

    def __call__(self, shape=(), dtype="float32"):
        return self._randomness.uniform(shape, self._lower, self._upper, tf.as_dtype(dtype))


class Augmenter:
    """Augments batches of pictures.

    Example:
      >>> augment = Augmenter(AugmentConfig(flip=True))
      >>> augment(tf.zeros([4, 32, 32, 3]), seed=tf.constant([1, 2])).shape
      TensorShape([4, 32, 32, 3])
    """

    def __init__(self, config: AugmentConfig) -> None:
        self._randomness = _Randomness()
        self._layers = _layers(config, self._randomness)
        for layer in self._layers:
            # The attribute where keras-cv documents a layer's source of random numbers to be.
            layer._random_generator = self._randomness

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments a batch.

        Args:
          images: float32 [batch, height, width, 3], values 0..255.
          seed: int [2]; the same seed gives the same result.

        Returns:
          float32 of the same shape, values 0..255.
        """
        self._randomness.start(seed)
        for layer in self._layers:
            images = layer(images)
        return tf.clip_by_value(images, 0.0, 255.0)


def _layers(config: AugmentConfig, randomness: _Randomness) -> list[tf.keras.layers.Layer]:
    """Returns the layers that are switched on, geometry before colour."""

    def around(middle: float, strength: float) -> _Factor:
        return _Factor(randomness, middle - strength, middle + strength)

    layers = keras_cv.layers
    # "nearest" continues both the white of a shop picture and the background of a street picture.
    fill = {"fill_mode": "nearest"}
    # Never drawn from; without it a layer asks for TensorFlow's global generator.
    seed = {"seed": 1}
    result = []
    if config.flip:
        result.append(layers.RandomFlip("horizontal", **seed))
    if config.rotation:
        result.append(layers.RandomRotation(config.rotation / 360, **fill, **seed))
    if config.zoom:
        result.append(layers.RandomZoom(config.zoom, **fill, **seed))
    if config.translation:
        result.append(
            layers.RandomTranslation(config.translation, config.translation, **fill, **seed)
        )
    if config.brightness:
        result.append(layers.RandomBrightness(around(0, config.brightness), **seed))
    if config.contrast:
        contrast = layers.RandomContrast(value_range=(0, 255), factor=config.contrast, **seed)
        contrast.factor = around(1, config.contrast)
        result.append(contrast)
    if config.saturation:
        # keras-cv's factor is 0 for grey, 0.5 for unchanged, 1 for full saturation.
        result.append(
            layers.RandomSaturation(around(0.5, 0.5 * min(config.saturation, 0.99)), **seed)
        )
    if config.hue:
        result.append(
            layers.RandomHue(_Factor(randomness, 0, config.hue), value_range=(0, 255), **seed)
        )
    if config.erase:
        side = _Factor(randomness, 0, config.erase)
        result.append(
            layers.RandomCutout(side, side, fill_mode="constant", fill_value=127.5, **seed)
        )
    return result
