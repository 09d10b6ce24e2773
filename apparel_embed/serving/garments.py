"""Detects, crops and embeds the garments of a photograph inside the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from apparel_embed.models.config import DetectorConfig
from apparel_embed.models.detector import find_garments
from apparel_embed.models.preprocessing import fit_square, place_in_square
from apparel_embed.serving.decoding import DECODED_AT_ONCE, decode_each_in_corner

# Photographs are shrunk to the larger of these before garments are cropped: a fixed side, and a
# multiple of the embedding model's input side, up to a limit for memory.
_USUAL_SIDE, _TIMES, _LARGEST_SIDE = 640, 4, 1280

Embed = Callable[[tf.Tensor], tf.Tensor]
"""Maps uint8 [n, size, size, 3], n > 0, to embeddings of unit length, float32 [n, dim]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """A detector, and how its garments are cropped.

    Attributes:
      model: the model, as returned by `load_detector`.
      config: its configuration, as returned by `load_detector`.
      crop_margin: margin around a box on each side, as a fraction of the box's side.
    """

    model: tf.keras.Model
    config: DetectorConfig
    crop_margin: float = 0.1


def embed_garments(
    encoded: tf.Tensor,
    detector: Detector,
    embed: Embed,
    size: int,
    dim: int,
    max_pixels: int,
) -> dict[str, tf.Tensor]:
    """Finds the garments in encoded images, and embeds each as if `prepare` had cropped it.

    Images go through the models one by one. So an answer is identical to the bit whatever the
    other images of the batch are, even if they have more garments.

    Args:
      encoded: string [batch], see `decode_each`.
      detector: finds the garments.
      embed: the embedding model.
      size: side of its square input, in pixels.
      dim: length of its embeddings.
      max_pixels: images with more pixels are refused before decoding.

    Returns:
      The detector's `most` garments per image, most likely first: `boxes` float32 [batch, most, 4],
      x_min, y_min, x_max, y_max as fractions of width and height of the upright image; `scores`
      float32, `found` bool, `vertical_index` int32 and `vertical_name` string [batch, most];
      `embedding` float32 [batch, most, dim]. Rows without a garment are 0, false, -1 and "".
      `valid` bool [batch] is false for bytes that are not a valid image. An empty request gives
      one row.
    """
    side = max(_USUAL_SIDE, min(_TIMES * size, _LARGEST_SIDE), size, detector.config.image_size)
    canvases, sides = decode_each_in_corner(encoded, side, max_pixels)
    most = detector.config.most_garments
    nothing = {
        "boxes": tf.zeros([most, 4]),
        "scores": tf.zeros([most]),
        "vertical_index": tf.fill([most], -1),
        "embedding": tf.zeros([most, dim]),
    }

    def of_one(one: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        canvas, (height, width) = one[0], tf.unstack(one[1])

        def found() -> dict[str, tf.Tensor]:
            garments = _of_image(canvas[:height, :width], detector, embed, size, dim)
            return {name: _padded(garments[name], rest) for name, rest in nothing.items()}

        return tf.cond(height > 0, found, lambda: nothing)

    answers = tf.map_fn(
        of_one,
        (canvases, sides),
        parallel_iterations=DECODED_AT_ONCE,
        fn_output_signature={
            name: tf.TensorSpec(value.shape, value.dtype) for name, value in nothing.items()
        },
    )
    names = tf.constant(["", *detector.config.verticals])
    answers["vertical_name"] = tf.gather(names, answers["vertical_index"] + 1)
    return {**answers, "found": answers["scores"] > 0, "valid": sides[:, 0] > 0}


def _of_image(
    image: tf.Tensor, detector: Detector, embed: Embed, size: int, dim: int
) -> dict[str, tf.Tensor]:
    """Returns the garments of an upright image, uint8 [height, width, 3], without padding."""
    square_side = detector.config.image_size
    sides = tf.shape(image)[:2]
    square = fit_square(image, square_side)
    garments = find_garments(detector.model, detector.config, square[tf.newaxis])
    boxes = _from_square(garments.boxes[0], sides, square_side)
    # A box that lies only in the margins of the square is not a garment.
    is_found = (garments.scores[0] > 0) & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], axis=1)
    boxes = tf.boolean_mask(boxes, is_found)
    rectangles = _crop_rectangles(boxes, sides, detector.crop_margin)

    def embedded() -> tf.Tensor:
        crops = tf.map_fn(
            lambda one: fit_square(image[one[1] : one[3], one[0] : one[2]], size),
            rectangles,
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8),
        )
        return embed(crops)

    return {
        "boxes": boxes,
        "scores": tf.boolean_mask(garments.scores[0], is_found),
        "vertical_index": tf.boolean_mask(garments.verticals[0], is_found),
        "embedding": tf.cond(tf.size(boxes) > 0, embedded, lambda: tf.zeros([0, dim])),
    }


def _padded(rows: tf.Tensor, nothing: tf.Tensor) -> tf.Tensor:
    """Returns rows, padded at the end with rows of `nothing` to its length."""
    return tf.ensure_shape(tf.concat([rows, nothing[tf.shape(rows)[0] :]], axis=0), nothing.shape)


def _from_square(boxes: tf.Tensor, sides: tf.Tensor, size: int) -> tf.Tensor:
    """Returns boxes as fractions of the image, from fractions of the square it was fitted into.

    Args:
      boxes: float32 [n, 4], x_min, y_min, x_max, y_max as fractions of the square's side.
      sides: height and width of the image, int32 [2].
      size: side of the square in pixels.
    """
    top, left, height, width = (tf.cast(one, tf.float32) for one in place_in_square(sides, size))
    starts, lengths = tf.stack([left, top] * 2), tf.stack([width, height] * 2)
    return tf.clip_by_value((boxes * size - starts) / lengths, 0.0, 1.0)


def _crop_rectangles(boxes: tf.Tensor, sides: tf.Tensor, margin: float) -> tf.Tensor:
    """Returns the rectangles to crop for boxes; equals `data.images.crop_rectangle`.

    Args:
      boxes: float32 [n, 4], as fractions of the image.
      sides: height and width of the image, int32 [2].
      margin: margin on each side, as a fraction of the box's side.

    Returns:
      int32 [n, 4], left, top, right, bottom in pixels, at least one pixel wide and high.
    """
    limits = sides[::-1]
    boxes = boxes * tf.cast(tf.tile(limits, [2]), tf.float32)
    low, high = boxes[:, :2], boxes[:, 2:]
    margins = (high - low) * margin
    low = tf.clip_by_value(tf.cast(tf.floor(low - margins), tf.int32), 0, limits - 1)
    high = tf.clip_by_value(tf.cast(tf.math.ceil(high + margins), tf.int32), low + 1, limits)
    return tf.concat([low, high], axis=1)
