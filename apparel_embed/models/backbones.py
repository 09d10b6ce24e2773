"""The backbones one can choose, built without a network.

The sized aliases of keras-cv (`MobileNetV3SmallBackbone()` and so on) ask the network for their
configuration even without weights; here the generic classes are built with the sizes written out.
A new backbone is one function and one line in `BACKBONES`.

keras-cv is imported where it is used: it brings along what takes seconds at every start.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line
from apparel_embed.models.small_cnn import small_cnn_backbone, small_cnn_levels

InputShape = tuple[int, int, int]


def _pyramid_levels(backbone: tf.keras.Model) -> Sequence[str]:
    return list(backbone.pyramid_level_inputs.values())


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How to build a backbone and what it wants to see.

    Attributes:
      build: makes the backbone for an input shape, with random weights.
      scale: factor that the pixels (0..255) are multiplied by.
      offset: added after `scale`.
      presets: names of keras-cv weights that fit it.
      levels: from the backbone to the names of the layers that end its levels, from fine to coarse.
    """

    build: Callable[[InputShape], tf.keras.Model]
    scale: float = 1 / 255
    offset: float = 0.0
    presets: tuple[str, ...] = ()
    levels: Callable[[tf.keras.Model], Sequence[str]] = _pyramid_levels


def _efficientnet_lite_b0(shape: InputShape) -> tf.keras.Model:
    import keras_cv

    return keras_cv.models.EfficientNetLiteBackbone(
        include_rescaling=False,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
        stackwise_num_repeats=[1, 2, 2, 3, 3, 4, 1],
        stackwise_input_filters=[32, 16, 24, 40, 80, 112, 192],
        stackwise_output_filters=[16, 24, 40, 80, 112, 192, 320],
        stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
        stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
        input_shape=shape,
    )


def _efficientnet_v2_b0(shape: InputShape) -> tf.keras.Model:
    import keras_cv

    return keras_cv.models.EfficientNetV2Backbone(
        include_rescaling=False,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        stackwise_kernel_sizes=[3, 3, 3, 3, 3, 3],
        stackwise_num_repeats=[1, 2, 2, 3, 5, 8],
        stackwise_input_filters=[32, 16, 32, 48, 96, 112],
        stackwise_output_filters=[16, 32, 48, 96, 112, 192],
        stackwise_expansion_ratios=[1, 4, 4, 4, 6, 6],
        stackwise_squeeze_and_excite_ratios=[0, 0, 0, 0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2, 1, 2],
        stackwise_conv_types=["fused", "fused", "fused", "unfused", "unfused", "unfused"],
        input_shape=shape,
    )


def _mobilenet_v3_small(shape: InputShape) -> tf.keras.Model:
    import keras_cv

    return keras_cv.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 72 / 16, 88 / 24, 4, 6, 6, 3, 3, 6, 6, 6],
        stackwise_filters=[16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
        stackwise_kernel_size=[3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5],
        stackwise_stride=[2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
        stackwise_se_ratio=[0.25, None, None] + 8 * [0.25],
        stackwise_activation=3 * ["relu"] + 8 * ["hard_swish"],
        include_rescaling=False,
        input_shape=shape,
    )


def _mobilenet_v3_large(shape: InputShape) -> tf.keras.Model:
    import keras_cv

    return keras_cv.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 4, 3, 3, 3, 3, 6, 2.5, 2.3, 2.3, 6, 6, 6, 6, 6],
        stackwise_filters=[16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
        stackwise_kernel_size=[3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5],
        stackwise_stride=[1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
        stackwise_se_ratio=3 * [None] + 3 * [0.25] + 4 * [None] + 5 * [0.25],
        stackwise_activation=6 * ["relu"] + 9 * ["hard_swish"],
        include_rescaling=False,
        input_shape=shape,
    )


def _resnet(
    kind: str, blocks: list[int], block_type: str
) -> Callable[[InputShape], tf.keras.Model]:
    def build(shape: InputShape) -> tf.keras.Model:
        import keras_cv

        return getattr(keras_cv.models, kind)(
            stackwise_filters=[64, 128, 256, 512],
            stackwise_blocks=blocks,
            stackwise_strides=[1, 2, 2, 2],
            block_type=block_type,
            include_rescaling=False,
            input_shape=shape,
        )

    return build


BACKBONES: dict[str, Backbone] = {
    "small_cnn": Backbone(
        small_cnn_backbone, scale=1 / 127.5, offset=-1.0, levels=small_cnn_levels
    ),
    # (pixel - 127) / 128, as its ImageNet weights were trained.
    "efficientnet_lite_b0": Backbone(_efficientnet_lite_b0, scale=1 / 128, offset=-127 / 128),
    "efficientnet_v2_b0": Backbone(_efficientnet_v2_b0, presets=("efficientnetv2_b0_imagenet",)),
    # Without presets: those that keras-cv names have another number of weights than it builds.
    "mobilenet_v3_small": Backbone(_mobilenet_v3_small),
    "mobilenet_v3_large": Backbone(_mobilenet_v3_large),
    "resnet18": Backbone(_resnet("ResNetBackbone", [2, 2, 2, 2], "basic_block")),
    "resnet50": Backbone(
        _resnet("ResNetBackbone", [3, 4, 6, 3], "block"),
        presets=("resnet50_imagenet",),
    ),
    "resnet50_v2": Backbone(
        _resnet("ResNetV2Backbone", [3, 4, 6, 3], "block"),
        presets=("resnet50_v2_imagenet",),
    ),
}


@contextlib.contextmanager
def without_keras_warnings() -> Iterator[None]:
    """Silences what Keras warns of while weights are saved or loaded.

    Both walk through `dir(backbone)`, and keras-cv's backbones then read each of their attributes,
    even those that Keras says will go.
    """
    with warnings.catch_warnings():
        for name in ("state_updates", "updates"):
            warnings.filterwarnings("ignore", rf".*\.{name}` will be removed", UserWarning)
        yield


def check_initial_weights(name: str, init_weights: str) -> None:
    """Raises a UserError if initial weights are neither "none", a preset nor a file.

    Args:
      name: of the backbone in `BACKBONES`.
      init_weights: as in `load_initial_weights`.
    """
    presets = BACKBONES[name].presets
    if init_weights not in ("none", *presets) and not Path(init_weights).is_file():
        allowed = ", ".join(("none", "a weights file", *presets))
        raise UserError(
            f"--init_weights={init_weights}: no such file; allowed for {name}: {allowed}"
        )


def load_initial_weights(backbone: tf.keras.Model, name: str, init_weights: str) -> None:
    """Loads weights into a backbone: from a file, or from a keras-cv preset over the network.

    Args:
      backbone: a model built by the registry.
      name: its name in `BACKBONES`.
      init_weights: path of a Keras weights file (`*.h5`), a preset name, or "none".

    Raises:
      UserError: if there is no such file or preset, or the weights do not fit.
    """
    check_initial_weights(name, init_weights)
    if init_weights == "none":
        return
    if init_weights in BACKBONES[name].presets:
        load = functools.partial(backbone.set_weights, _preset_weights(backbone, init_weights))
    else:
        load = functools.partial(backbone.load_weights, init_weights)
    try:
        with without_keras_warnings():
            load()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--init_weights={init_weights}: not the weights of backbone {name}: {reason}"
        ) from error


def fetch_initial_weights(name: str, init_weights: str) -> None:
    """Fetches the weights of a preset, for what would else fail when much has been done already.

    Args:
      name: of the backbone in `BACKBONES`.
      init_weights: as in `load_initial_weights`.

    Raises:
      UserError: as `load_initial_weights`.
    """
    if init_weights in BACKBONES[name].presets:
        logging.info("weights %s: fetching them, unless they were before", init_weights)
        load_initial_weights(BACKBONES[name].build((96, 96, 3)), name, init_weights)


def _preset_weights(backbone: tf.keras.Model, preset: str) -> list[np.ndarray]:
    """Returns the weights of a keras-cv preset of a backbone's class.

    Raises:
      UserError: if they cannot be fetched.
    """
    try:
        return type(backbone).from_preset(preset).get_weights()
    except OSError as error:
        # All that the network can do to it, too.
        raise UserError(
            f"--init_weights={preset}: cannot be fetched ({type(error).__name__}: "
            f"{one_line(error)[:200]}); without a network give a weights file, or none"
        ) from error
