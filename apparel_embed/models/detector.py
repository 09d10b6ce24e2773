"""The detector: finds the garments in a photograph, with a box and a vertical for each.

Like FCOS (Tian et al. 2019, arXiv 1904.01355) it has no anchors. Every cell of one grid predicts
the probability that the centre of a garment of each vertical is there, and the distances from the
cell to the four sides of the garment's box.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json, write_json
from apparel_embed.models.backbones import Backbone, find_backbone, load_initial_weights
from apparel_embed.models.computing import set_momentum
from apparel_embed.models.config import PYRAMID, DetectorConfig
from apparel_embed.models.embedding import load_embedding_model, load_weights, save_weights

_CONFIG_FILE = "detector.json"
_WEIGHTS_FILE = "detector.weights.h5"

# Height and width of a cell, in pixels of the input.
_STRIDE = 8
_CHANNELS = 96
# Initial score of an untrained detector: nearly all cells show no centre of a garment (RetinaNet,
# Lin et al. 2017, arXiv 1708.02002).
_PRIOR = 0.01
# Half the side of the box that an untrained detector predicts, as a fraction of the square's side.
_USUAL_REACH = 1 / 6
# exp of larger values would soon overflow if a training diverged.
_LARGEST_LOG = 4.0
# Of two boxes of a vertical with a larger IoU, the one with the lower score is dropped.
_SAME_GARMENT = 0.5
# The same for boxes of two verticals; a higher limit, as garments in a heap overlap.
_SAME_BOX = 0.8
# Maximum number of boxes per vertical after non-maximum suppression.
_CANDIDATES = 100


class Detections(NamedTuple):
    """The garments found in images, in descending order of score.

    Attributes:
      boxes: float32 [batch, most, 4], x_min, y_min, x_max, y_max as fractions of the square's side,
        0 to 1; padded with zeros.
      scores: float32 [batch, most], 0 to 1, descending; padded with zeros.
      verticals: int32 [batch, most], indices into `DetectorConfig.verticals`; padded with zeros.
    """

    boxes: tf.Tensor
    scores: tf.Tensor
    verticals: tf.Tensor


def build_detector(
    config: DetectorConfig, init_weights: str = "none", start: Path | None = None
) -> tf.keras.Model:
    """Returns a detector.

    Args:
      config: what to build.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      start: directory of an embedding model whose backbone weights are copied instead, or None.

    Returns:
      A model from float32 [batch, image_size, image_size, 3] with values 0..255 (RGB) to float32
      [batch, cells, 4 + verticals], the input of `split_cells`. It has a layer named "backbone".

    Raises:
      UserError: if the backbone is unknown, or differs from that of the embedding model.

    Examples:
      >>> detector = build_detector(DetectorConfig(verticals=("bag", "dress"), image_size=64))
      >>> detector(tf.zeros([1, 64, 64, 3])).shape
      TensorShape([1, 64, 6])
    """
    entry = find_backbone(config.backbone)
    shape = (config.image_size, config.image_size, 3)
    whole = entry.build(shape)
    load_initial_weights(whole, config.backbone, init_weights)
    if start:
        _copy_backbone(whole, entry, config, start)
    levels = [whole.get_layer(name).output for name in entry.levels(whole)]
    levels = [level for level in levels if level.shape[1] <= config.image_size // _STRIDE]
    backbone = tf.keras.Model(whole.input, levels, name="backbone")

    inputs = tf.keras.Input(shape, name="images", dtype="float32")
    x = tf.keras.layers.Rescaling(entry.scale, entry.offset, name="rescaling", dtype="float32")(
        inputs
    )
    found = backbone(x)
    levels = list(found) if isinstance(found, Sequence) else [found]
    # One more level than the backbone has: its receptive field is nearly the whole photograph.
    levels.append(_convolve(levels[-1], 2, "context"))
    x = _join(levels)
    for name in ("head0", "head1"):
        x = _convolve(x, 1, name)
    boxes = tf.keras.layers.Conv2D(4, 3, padding="same", name="boxes", dtype="float32")(x)
    logits = tf.keras.layers.Conv2D(
        len(config.verticals),
        3,
        padding="same",
        bias_initializer=tf.keras.initializers.Constant(-math.log(1 / _PRIOR - 1)),
        name="verticals",
        dtype="float32",
    )(x)
    both = tf.keras.layers.Concatenate(name="cells", dtype="float32")([boxes, logits])
    outputs = tf.keras.layers.Reshape([-1, 4 + len(config.verticals)], dtype="float32")(both)
    model = tf.keras.Model(inputs, outputs, name="detector")
    set_momentum(model, config.batch_norm_momentum)
    return model


def _copy_backbone(
    whole: tf.keras.Model, entry: Backbone, config: DetectorConfig, start: Path
) -> None:
    """Copies the weights of an embedding model's backbone into a new backbone."""
    model, built = load_embedding_model(start)
    if built.backbone != config.backbone:
        raise UserError(
            f"the detector cannot start from {start}: its backbone is {built.backbone}, "
            f"--detector_backbone is {config.backbone}; they must be equal"
        )
    if built.pooling == PYRAMID:
        levels = [whole.get_layer(name).output for name in entry.levels(whole)]
        whole = tf.keras.Model(whole.input, levels)
    whole.set_weights(model.get_layer("backbone").get_weights())


def _convolve(x: tf.Tensor, strides: int, name: str) -> tf.Tensor:
    layers = tf.keras.layers
    x = layers.Conv2D(
        _CHANNELS, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv"
    )(x)
    return layers.ReLU(name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_norm")(x))


def _join(levels: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns all levels on the finest one's grid, as a feature pyramid does."""
    layers = tf.keras.layers
    x = None
    for place, level in reversed(list(enumerate(levels))):
        lateral = layers.Conv2D(_CHANNELS, 1, name=f"lateral{place}")(level)
        if x is not None:
            height, width = lateral.shape[1:3]
            x = layers.UpSampling2D(2, name=f"up{place}")(x)
            # Upsampling half of an odd number, rounded up, gives one cell too many.
            x = layers.Cropping2D(((0, x.shape[1] - height), (0, x.shape[2] - width)))(x)
            lateral = layers.Add(name=f"join{place}")([lateral, x])
        x = lateral
    return x


def cell_centres(image_size: int) -> tf.Tensor:
    """Returns the centres of a detector's cells, row by row.

    Args:
      image_size: side of the detector's input, in pixels.

    Returns:
      float32 [cells, 2], x and y as fractions of the square's side.
    """
    count = -(-image_size // _STRIDE)
    axis = (tf.range(count, dtype=tf.float32) + 0.5) * (_STRIDE / image_size)
    y, x = tf.meshgrid(axis, axis, indexing="ij")
    return tf.stack([tf.reshape(x, [-1]), tf.reshape(y, [-1])], axis=1)


def split_cells(raw: tf.Tensor, centres: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits a detector's output into the boxes of its cells and the logits of verticals.

    Args:
      raw: float32 [batch, cells, 4 + verticals], the output of a detector: logarithms of the
        distances of the left, upper, right and lower side from the cell's centre, in units of the
        initial distance, and a logit for each vertical.
      centres: float32 [cells, 2], from `cell_centres`.

    Returns:
      Boxes, float32 [batch, cells, 4]: x_min, y_min, x_max, y_max as fractions of the square's
      side, possibly outside 0 to 1; and logits, float32 [batch, cells, verticals].
    """
    logarithms = tf.clip_by_value(raw[..., :4], -_LARGEST_LOG, _LARGEST_LOG)
    reach = _USUAL_REACH * tf.exp(logarithms)
    boxes = tf.concat([centres - reach[..., :2], centres + reach[..., 2:]], axis=-1)
    return boxes, raw[..., 4:]


def find_garments(model: tf.keras.Model, config: DetectorConfig, squares: tf.Tensor) -> Detections:
    """Finds the garments in images.

    Args:
      model: a detector.
      config: the detector's configuration.
      squares: uint8 or float32 [batch, image_size, image_size, 3], values 0..255, as from
        `fit_square`.

    Returns:
      At most `config.most_garments` garments per image, with one vertical each.
    """
    raw = model(tf.cast(squares, tf.float32), training=False)
    return with_one_vertical(detections_of(raw, config))


def detections_of(raw: tf.Tensor, config: DetectorConfig, least: float | None = None) -> Detections:
    """Returns the detections of each vertical by itself, see `find_garments`.

    A garment whose vertical is ambiguous appears more than once.
    """
    boxes, logits = split_cells(raw, cell_centres(config.image_size))
    boxes, scores = tf.clip_by_value(boxes, 0.0, 1.0), tf.sigmoid(logits)
    best = tf.image.combined_non_max_suppression(
        boxes[:, :, tf.newaxis],
        scores,
        max_output_size_per_class=min(_CANDIDATES, config.most_garments),
        max_total_size=config.most_garments,
        iou_threshold=_SAME_GARMENT,
        score_threshold=config.score_threshold if least is None else least,
    )
    return Detections(best.nmsed_boxes, best.nmsed_scores, tf.cast(best.nmsed_classes, tf.int32))


def with_one_vertical(found: Detections) -> Detections:
    """Drops detections with nearly the same box as a higher-scoring one of another vertical."""
    low, high = found.boxes[..., :2], found.boxes[..., 2:]
    both = tf.reduce_prod(
        tf.maximum(
            tf.minimum(high[:, :, tf.newaxis], high[:, tf.newaxis])
            - tf.maximum(low[:, :, tf.newaxis], low[:, tf.newaxis]),
            0.0,
        ),
        axis=-1,
    )
    areas = tf.reduce_prod(high - low, axis=-1)
    either = areas[:, :, tf.newaxis] + areas[:, tf.newaxis] - both
    places = tf.range(tf.shape(areas)[1])
    is_likelier = places[tf.newaxis] < places[:, tf.newaxis]
    is_left_out = tf.reduce_any((both > _SAME_BOX * either) & is_likelier, axis=-1)
    scores = tf.where(is_left_out, 0.0, found.scores)
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    boxes, scores, verticals = (
        tf.gather(values, order, batch_dims=1) for values in (found.boxes, scores, found.verticals)
    )
    is_found = scores > 0
    return Detections(
        tf.where(is_found[..., tf.newaxis], boxes, 0.0), scores, tf.where(is_found, verticals, 0)
    )


def save_detector(directory: Path, model: tf.keras.Model, config: DetectorConfig) -> None:
    """Writes configuration and weights to `directory`, each file atomically."""
    directory.mkdir(parents=True, exist_ok=True)
    save_weights(model, directory / _WEIGHTS_FILE)
    write_json(directory / _CONFIG_FILE, dataclasses.asdict(config))


def load_detector(directory: Path) -> tuple[tf.keras.Model, DetectorConfig]:
    """Reads a detector that `save_detector` wrote.

    Raises:
      UserError: if the directory does not contain a detector, or it cannot be read.
    """
    for name in (_CONFIG_FILE, _WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise UserError(f"{directory}: expected a detector, but {name} is missing")
    try:
        settings: dict[str, Any] = read_json(directory / _CONFIG_FILE)
        config = DetectorConfig(**{**settings, "verticals": tuple(settings["verticals"])})
        model = build_detector(config)
        load_weights(model, directory / _WEIGHTS_FILE)
    except (OSError, TypeError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{directory}: the detector cannot be read: {reason}") from error
    return model, config
