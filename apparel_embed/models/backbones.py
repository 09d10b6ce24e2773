"""Registry of backbones, which are built without network access.

To add a backbone, add a line to `BACKBONES`, and a function if keras-cv has no class for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.text import one_line

if TYPE_CHECKING:
    import tensorflow as tf

Build = Callable[["tuple[int, int, int]"], "tf.keras.Model"]


def _pyramid_levels(backbone: tf.keras.Model) -> Sequence[str]:
    return list(backbone.pyramid_level_inputs.values())


@dataclasses.dataclass(frozen=True)
class Backbone:
    """How to build a backbone, and the input it expects.

    Attributes:
      build: builds the backbone for an input shape, with random weights.
      scale: factor applied to the pixels (0..255).
      offset: added after scaling.
      presets: names of keras-cv weights that fit the backbone.
      levels: maps the backbone to the names of the last layer of each level, from fine to coarse.
    """

    build: Build
    scale: float = 1 / 255
    offset: float = 0.0
    presets: tuple[str, ...] = ()
    levels: Callable[[tf.keras.Model], Sequence[str]] = _pyramid_levels


def _keras_cv(kind: str, **sizes: Any) -> Build:
    """Returns a function that builds one of keras-cv's generic backbones.

    The sized aliases (`MobileNetV3SmallBackbone()` and so on) download their configuration even
    without weights, so the sizes are spelled out here.
    """

    def build(shape: tuple[int, int, int]) -> tf.keras.Model:
        # Imported here because it takes seconds.
        import keras_cv

        return getattr(keras_cv.models, kind)(include_rescaling=False, input_shape=shape, **sizes)

    return build


def _resnet(kind: str, blocks: list[int], block_type: str) -> Build:
    return _keras_cv(
        kind,
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=blocks,
        stackwise_strides=[1, 2, 2, 2],
        block_type=block_type,
    )


def small_cnn(
    input_shape: tuple[int, int, int], filters: tuple[int, ...] = (32, 64, 128, 192)
) -> tf.keras.Model:
    """Returns a small residual CNN, which trains from scratch in seconds.

    Each stage halves height and width with a strided 3x3 convolution. All stages except the first,
    where feature maps are large, add a residual convolution. Depth pays off more than width: a
    student must fit as many functions as there are specialists.

    Args:
      input_shape: height, width and channels of the input, in pixels.
      filters: channels of each stage.

    Returns:
      A functional model from images to a feature map [batch, h, w, filters[-1]].
    """
    import tensorflow as tf  # Imported here: flags need only the names of backbones.

    def convolve(x: tf.Tensor, channels: int, strides: int, name: str) -> tf.Tensor:
        x = tf.keras.layers.Conv2D(
            channels, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        return tf.keras.layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = tf.keras.Input(input_shape)
    x = inputs
    for stage, channels in enumerate(filters):
        x = convolve(x, channels, 2, f"stage{stage}_down")
        x = tf.keras.layers.ReLU(name=f"stage{stage}_down_relu")(x)
        if stage > 0:
            residual = convolve(x, channels, 1, f"stage{stage}_residual")
            x = tf.keras.layers.Add(name=f"stage{stage}_add")([x, residual])
            x = tf.keras.layers.ReLU(name=f"stage{stage}_relu")(x)
    return tf.keras.Model(inputs, x, name="small_cnn")


def _small_cnn_levels(backbone: tf.keras.Model) -> list[str]:
    relus = [layer.name for layer in backbone.layers if layer.name.endswith("relu")]
    # The strided convolution of each stage has its own ReLU; the first stage has no other.
    return [name for name in relus if not name.endswith("_down_relu") or name == relus[0]]


BACKBONES: dict[str, Backbone] = {
    "small_cnn": Backbone(small_cnn, scale=1 / 127.5, offset=-1.0, levels=_small_cnn_levels),
    "efficientnet_lite_b0": Backbone(
        _keras_cv(
            "EfficientNetLiteBackbone",
            width_coefficient=1.0,
            depth_coefficient=1.0,
            stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
            stackwise_num_repeats=[1, 2, 2, 3, 3, 4, 1],
            stackwise_input_filters=[32, 16, 24, 40, 80, 112, 192],
            stackwise_output_filters=[16, 24, 40, 80, 112, 192, 320],
            stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
            stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
        ),
        # (pixel - 127) / 128, as its ImageNet weights were trained.
        scale=1 / 128,
        offset=-127 / 128,
    ),
    "efficientnet_v2_b0": Backbone(
        _keras_cv(
            "EfficientNetV2Backbone",
            width_coefficient=1.0,
            depth_coefficient=1.0,
            stackwise_kernel_sizes=[3, 3, 3, 3, 3, 3],
            stackwise_num_repeats=[1, 2, 2, 3, 5, 8],
            stackwise_input_filters=[32, 16, 32, 48, 96, 112],
            stackwise_output_filters=[16, 32, 48, 96, 112, 192],
            stackwise_expansion_ratios=[1, 4, 4, 4, 6, 6],
            stackwise_squeeze_and_excite_ratios=[0, 0, 0, 0.25, 0.25, 0.25],
            stackwise_strides=[1, 2, 2, 2, 1, 2],
            stackwise_conv_types=3 * ["fused"] + 3 * ["unfused"],
        ),
        presets=("efficientnetv2_b0_imagenet",),
    ),
    # Without presets: keras-cv's presets have a different number of weights than its model.
    "mobilenet_v3_small": Backbone(
        _keras_cv(
            "MobileNetV3Backbone",
            stackwise_expansion=[1, 72 / 16, 88 / 24, 4, 6, 6, 3, 3, 6, 6, 6],
            stackwise_filters=[16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
            stackwise_kernel_size=[3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5],
            stackwise_stride=[2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
            stackwise_se_ratio=[0.25, None, None] + 8 * [0.25],
            stackwise_activation=3 * ["relu"] + 8 * ["hard_swish"],
        )
    ),
    "mobilenet_v3_large": Backbone(
        _keras_cv(
            "MobileNetV3Backbone",
            stackwise_expansion=[1, 4, 3, 3, 3, 3, 6, 2.5, 2.3, 2.3, 6, 6, 6, 6, 6],
            stackwise_filters=[16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
            stackwise_kernel_size=[3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5],
            stackwise_stride=[1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
            stackwise_se_ratio=3 * [None] + 3 * [0.25] + 4 * [None] + 5 * [0.25],
            stackwise_activation=6 * ["relu"] + 9 * ["hard_swish"],
        )
    ),
    "resnet18": Backbone(_resnet("ResNetBackbone", [2, 2, 2, 2], "basic_block")),
    "resnet50": Backbone(
        _resnet("ResNetBackbone", [3, 4, 6, 3], "block"), presets=("resnet50_imagenet",)
    ),
    "resnet50_v2": Backbone(
        _resnet("ResNetV2Backbone", [3, 4, 6, 3], "block"), presets=("resnet50_v2_imagenet",)
    ),
}


@contextlib.contextmanager
def without_keras_warnings() -> Iterator[None]:
    """Silences Keras' deprecation warnings while weights are saved or loaded.

    Both walk through `dir(backbone)`, and keras-cv's backbones then read each of their attributes,
    including deprecated ones.
    """
    with warnings.catch_warnings():
        for name in ("state_updates", "updates"):
            warnings.filterwarnings("ignore", rf".*\.{name}` will be removed", UserWarning)
        yield


def find_backbone(name: str) -> Backbone:
    """Returns the backbone with a name; raises a UserError if the name is unknown."""
    if name not in BACKBONES:
        raise UserError(f"backbone {name!r}: expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def check_initial_weights(name: str, init_weights: str) -> None:
    """Raises a UserError if initial weights are neither "none", a preset nor a file.

    Args:
      name: the backbone's name in `BACKBONES`.
      init_weights: as in `load_initial_weights`.
    """
    presets = BACKBONES[name].presets
    if init_weights not in ("none", *presets) and not Path(init_weights).is_file():
        allowed = ", ".join(("none", "a weights file", *presets))
        raise UserError(
            f"--init_weights={init_weights}: no such file; for {name}, expected one of {allowed}"
        )


def load_initial_weights(backbone: tf.keras.Model, name: str, init_weights: str) -> None:
    """Loads weights into a backbone, from a file or from a keras-cv preset over the network.

    Args:
      backbone: a model built by the registry.
      name: the backbone's name in `BACKBONES`.
      init_weights: path of a Keras weights file (`*.h5`), a preset name, or "none".

    Raises:
      UserError: if the file or preset does not exist, cannot be fetched, or does not fit.
    """
    check_initial_weights(name, init_weights)
    if init_weights == "none":
        return
    if init_weights in BACKBONES[name].presets:
        try:
            weights = type(backbone).from_preset(init_weights).get_weights()
        except OSError as error:
            # Network errors are OSErrors, too.
            raise UserError(
                f"--init_weights={init_weights}: cannot be downloaded ({type(error).__name__}: "
                f"{one_line(error)[:200]}); without network access, use a weights file or none"
            ) from error
        load = functools.partial(backbone.set_weights, weights)
    else:
        load = functools.partial(backbone.load_weights, init_weights)
    try:
        with without_keras_warnings():
            load()
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--init_weights={init_weights}: expected weights of backbone {name}: {reason}"
        ) from error


def try_initial_weights(name: str, init_weights: str) -> None:
    """Loads initial weights once, so that a wrong file or a failing network shows at once.

    Args:
      name: of the backbone in `BACKBONES`.
      init_weights: as in `load_initial_weights`, whose errors it raises.
    """
    if init_weights != "none":
        logging.info("trying the initial weights %s", init_weights)
        load_initial_weights(BACKBONES[name].build((96, 96, 3)), name, init_weights)
