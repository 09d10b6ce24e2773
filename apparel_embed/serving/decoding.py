"""Decoding of untrusted images inside the graph: within limits, upright, on white.

`prepare` decodes training images with Pillow; this module gives the same result for the formats
that TensorFlow decodes. An image that cannot be decoded correctly fails, and callers confine the
failure to that image.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf
from tensorflow.types.experimental import ConcreteFunction

from apparel_embed.models.preprocessing import fit_corner, fit_square
from apparel_embed.serving.confined import Attempt, confined, directly
from apparel_embed.serving.headers import (
    big_endian,
    gif_first_frame,
    jpeg_metadata,
    little_endian,
    png_metadata,
    read_bytes,
)

# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if its longest side keeps at least this many
# pixels and twice those of the model's input. This saves time and memory, and the resizing filter
# hides the difference. Prepared images are usually smaller, and decoded as in evaluation.
_ENOUGH_PIXELS = 640
_RATIOS = (1, 2, 4, 8)
# Progressive JPEGs have about ten scans. Each may be a few bytes and costs a pass over all pixels.
_MOST_SCANS = 32
_MOST_BYTES = 32 * 2**20
# The tables of a typical JPEG, up to its first scan, take fewer bytes.
_HEAD = 2048
# Each takes memory, and concurrent requests use further cores anyway.
DECODED_AT_ONCE = 4
"""Images of one request decoded in parallel."""

_Fit = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
# Maps an image to a square of fixed size, and the height and width of its content.


def decode_each(encoded: tf.Tensor, size: int, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images one by one, so that a broken image does not affect the others.

    Args:
      encoded: string [batch]; each JPEG (grey or RGB), PNG, GIF (its first frame) or BMP (8,
        24 or 32 bits, not compressed).
      size: side of the square that they are fitted into, in pixels.
      max_pixels: images with more pixels are refused before decoding.

    Returns:
      uint8 [batch, size, size, 3] and bool [batch], false (and black) for bytes that are not an
      image, or for an image that is broken, too large, or would be decoded incorrectly. An empty
      request gives one row, since convolutions fail on an empty batch.
    """

    def fit(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return fit_square(image, size), tf.shape(image)[:2]

    squares, sides = _decode_each(encoded, fit, size, max(_ENOUGH_PIXELS, 2 * size), max_pixels)
    return squares, sides[:, 0] > 0


def decode_each_in_corner(
    encoded: tf.Tensor, side: int, max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images like `decode_each`, but for cropping: images are never enlarged.

    Args:
      encoded: see `decode_each`.
      side: side of the square; images are shrunk to it, and placed in its upper left corner.
      max_pixels: see `decode_each`.

    Returns:
      uint8 [batch, side, side, 3], and int32 [batch, 2], the height and width of each upright
      image in its square, zeros where `decode_each` gives false.
    """
    fit = functools.partial(fit_corner, side=side)
    return _decode_each(encoded, fit, side, side, max_pixels)


def _decode_each(
    encoded: tf.Tensor, fit: _Fit, side: int, enough: int, max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images one by one: squares, and the height and width of their content."""
    encoded = tf.where(tf.strings.length(encoded) <= _MOST_BYTES, encoded, b"")
    kinds = _kinds(encoded)
    return tf.cond(
        tf.shape(encoded)[0] == 1,
        lambda: _decode_one(
            encoded[0], kinds[0], fit, side, _decoders(enough, max_pixels, confined)
        ),
        lambda: _decode_many(encoded, kinds, fit, side, _decoders(enough, max_pixels, directly)),
    )


def _decode_one(
    encoded: tf.Tensor, kind: tf.Tensor, fit: _Fit, side: int, decoders: list[ConcreteFunction]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Implements `_decode_each` for one image; each step that may fail is confined."""
    image = _decode(encoded, kind, decoders)
    square, sides = tf.cond(tf.size(image) > 0, lambda: fit(image), lambda: _no_image(side))
    return square[tf.newaxis], sides[tf.newaxis]


def _decode_many(
    encoded: tf.Tensor, kinds: tf.Tensor, fit: _Fit, side: int, decoders: list[ConcreteFunction]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Implements `_decode_each` for any number of images.

    Images that fail are dropped; the others are put in their places by their numbers.
    """
    count = tf.shape(encoded)[0]
    images = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded, kinds))
    # An additional last row, which replaces the dropped images.
    stand_in = tf.data.Dataset.from_tensors((count, *_no_image(side)))
    found = images.map(
        lambda number, one, kind: (number, *fit(_decode(one, kind, decoders))),
        num_parallel_calls=DECODED_AT_ONCE,
        deterministic=True,
    )
    both = found.ignore_errors(log_warning=False).concatenate(stand_in)
    numbers, squares, sides = both.batch(tf.cast(count + 1, tf.int64)).get_single_element()
    # For an empty request, one row remains.
    places, rows = numbers[:-1, tf.newaxis], tf.maximum(count, 1)
    last = tf.shape(numbers)[0] - 1
    order = tf.tensor_scatter_nd_update(tf.fill([rows], last), places, tf.range(last))
    return tf.gather(squares, order), tf.gather(sides, order)


def _no_image(side: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros([side, side, 3], tf.uint8), tf.zeros([2], tf.int32)


def _kinds(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the decoder index of each image in string [batch], from its first bytes.

    It handles all images at once: many small steps take longer than decoding a small image.
    """
    head = tf.io.decode_raw(tf.strings.substr(encoded, 0, _HEAD), tf.uint8, fixed_length=_HEAD)

    def starts(magic: bytes) -> tf.Tensor:
        return tf.cast(tf.reduce_all(head[:, : len(magic)] == list(magic), axis=1), tf.int32)

    # Most JPEGs have only a JFIF segment, tables and pixels, and no metadata that rotates them.
    is_marker, marker = head[:, 4:-1] == 0xFF, head[:, 5:]
    has_metadata = tf.reduce_any(
        is_marker & ((marker >= 0xE0) & (marker <= 0xEF) | (marker == 0xFE)), axis=1
    )
    has_scan = tf.reduce_any(is_marker & (marker == 0xDA), axis=1)
    is_plain = starts(b"\xff\xd8\xff\xe0\0\x10") * tf.cast(has_scan & ~has_metadata, tf.int32)
    # Unknown formats are decoded as JPEG, which fails.
    return is_plain + 2 * starts(b"\x89PNG") + 3 * starts(b"GIF8") + 4 * starts(b"BM")


def _decoders(enough: int, max_pixels: int, attempt: Attempt) -> list[ConcreteFunction]:
    """Returns the decoders, which give images upright and on white.

    Args:
      enough: minimum longest side of a JPEG decoded at reduced size, in pixels.
      max_pixels: see `decode_each`.
      attempt: runs the steps that fail on invalid bytes; if it confines a failure, the decoder
        returns an empty image.
    """

    def jpeg_with_metadata(one: tf.Tensor) -> tf.Tensor:
        orientation, is_known, scans = jpeg_metadata(one)
        image = _decode_jpeg(_only_if(is_known, one), enough, max_pixels, attempt, scans)
        return _turn_upright(image, orientation)

    decoders = (
        jpeg_with_metadata,
        functools.partial(_decode_jpeg, enough=enough, max_pixels=max_pixels, attempt=attempt),
        functools.partial(_decode_png, max_pixels=max_pixels, attempt=attempt),
        functools.partial(_decode_gif, max_pixels=max_pixels, attempt=attempt),
        functools.partial(_decode_bmp, max_pixels=max_pixels, attempt=attempt),
    )
    signature = [tf.TensorSpec([], tf.string)]
    return [tf.function(one, signature).get_concrete_function() for one in decoders]


def _decode(encoded: tf.Tensor, kind: tf.Tensor, decoders: list[ConcreteFunction]) -> tf.Tensor:
    """Decodes one image: uint8 [height, width, 3]."""
    # Not `tf.switch_case`: it inlines all decoders into one graph and also visits the branches
    # not taken, which is slower than decoding a small image.
    (image,) = tf.raw_ops.StatelessCase(
        branch_index=kind,
        input=[encoded],
        Tout=[tf.uint8],
        branches=decoders,
        output_shapes=[[None, None, 3]],
    )
    image.set_shape([None, None, 3])
    return image


def _decode_jpeg(
    encoded: tf.Tensor,
    enough: int,
    max_pixels: int,
    attempt: Attempt,
    start: tf.Tensor | int = 0,
) -> tf.Tensor:
    """Decodes a JPEG without rotating it; no metadata comes between `start` and its pixels."""
    # If the shape cannot be read, the pixels cannot be decoded either.
    shape = attempt(tf.image.extract_jpeg_shape, encoded, tf.zeros([3], tf.int32))
    sides = shape[:2]
    values = tf.io.decode_raw(encoded, tf.uint8)
    scans = tf.math.count_nonzero(_marks(values, 0xDA))
    encoded = tf.cond(
        scans <= _MOST_SCANS, lambda: encoded, lambda: _cut_behind(encoded, values, start)
    )
    is_right = tf.reduce_prod(tf.cast(sides, tf.int64)) <= max_pixels
    # Without Adobe's marker, decoders disagree on whether CMYK values are inverted.
    is_right &= shape[2] != 4
    encoded = _only_if(is_right, encoded)
    larger = tf.reduce_max(sides) >= [ratio * enough for ratio in _RATIOS[1:]]
    return tf.switch_case(
        tf.math.count_nonzero(larger, dtype=tf.int32),
        [
            functools.partial(
                attempt,
                functools.partial(tf.io.decode_jpeg, channels=3, ratio=ratio),
                encoded,
                _no_pixels(3),
            )
            for ratio in _RATIOS
        ],
    )


def _no_pixels(channels: int) -> tf.Tensor:
    return tf.zeros([0, 0, channels], tf.uint8)


def _marks(values: tf.Tensor, marker: int) -> tf.Tensor:
    """Returns where a JPEG has the bytes of a marker, bool; some may be there by chance."""
    return (values[:-1] == 0xFF) & (values[1:] == marker)


def _cut_behind(encoded: tf.Tensor, values: tf.Tensor, start: tf.Tensor | int) -> tf.Tensor:
    """Returns a JPEG without trailing data; b"" if the JPEG itself has too many scans.

    Phones append videos and further images, which contain markers by chance.
    """
    scans = _marks(values, 0xDA)[start:]
    pixels = tf.argmax(scans, output_type=tf.int32)
    size = tf.argmax(_marks(values, 0xD9)[start + pixels :], output_type=tf.int32)
    image = tf.strings.substr(encoded, 0, start + pixels + size + 2)
    count = tf.math.count_nonzero(scans[pixels : pixels + size])
    return _only_if((size > 0) & (count <= _MOST_SCANS), image)


def _decode_png(encoded: tf.Tensor, max_pixels: int, attempt: Attempt) -> tf.Tensor:
    header = read_bytes(encoded, 0, 26)
    width, height = big_endian(header[16:20]), big_endian(header[20:24])
    orientation, is_known = png_metadata(encoded, attempt)
    encoded = _only_if(is_known & _is_within(height, width, max_pixels), encoded)
    image = attempt(functools.partial(tf.io.decode_png, channels=4), encoded, _no_pixels(4))
    colour, alpha = image[..., :3], image[..., 3:]
    # For images without alpha, TensorFlow fills in the largest value of the image's bit depth.
    opaque = tf.bitwise.left_shift(1, tf.minimum(header[24], 8)) - 1
    on_white = tf.cond(
        tf.reduce_all(alpha == tf.cast(opaque, tf.uint8)),
        lambda: colour,
        lambda: _compose(colour, alpha),
    )
    return _turn_upright(on_white, orientation)


def _decode_gif(encoded: tf.Tensor, max_pixels: int, attempt: Attempt) -> tf.Tensor:
    header = read_bytes(encoded, 0, 10)
    width, height = little_endian(header[6:8]), little_endian(header[8:10])
    encoded = _only_if(_is_within(height, width, max_pixels), encoded)
    frame, is_whole = gif_first_frame(encoded)
    frames = attempt(tf.io.decode_gif, _only_if(is_whole, frame), _no_pixels(3)[tf.newaxis])
    return frames[0]


def _decode_bmp(encoded: tf.Tensor, max_pixels: int, attempt: Attempt) -> tf.Tensor:
    header = read_bytes(encoded, 0, 34)
    header_size = little_endian(header[14:18])
    sides = tf.strings.substr(encoded, tf.minimum(18, tf.strings.length(encoded)), 8)
    sides = tf.io.decode_raw(sides, tf.int32, fixed_length=8)
    width, height = tf.unstack(tf.cast(sides, tf.int64))
    bits, compression = little_endian(header[28:30]), little_endian(header[30:34])
    is_plain = (compression == 0) & (header_size >= 40) & (header_size <= 124)
    is_plain &= (bits == 8) | (bits == 24) | (bits == 32)
    encoded = _only_if(is_plain & _is_within(tf.abs(height), width, max_pixels), encoded)
    image = attempt(tf.io.decode_bmp, encoded, _no_pixels(3))

    def by_palette() -> tf.Tensor:
        start = 14 + tf.cast(header_size, tf.int32)
        colours = tf.reshape(read_bytes(encoded, start, 4 * 256), [256, 4])
        return tf.gather(tf.cast(colours[:, 2::-1], tf.uint8), tf.cast(image[..., 0], tf.int32))

    return tf.cond(bits == 8, by_palette, lambda: image[..., :3])


def _is_within(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Returns whether the number of pixels is positive and within the limit; sides are < 2^31."""
    return (height > 0) & (width > 0) & (height * width <= max_pixels)


def _only_if(condition: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Returns the bytes, or b"", which every decoder refuses.

    Unlike with an assertion, no decoder can start before the condition is known.
    """
    return tf.where(condition, encoded, b"")


def _compose(colour: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns an image on white, uint8 [height, width, 3], from colour and alpha [..., 1].

    It computes in 16 bits, which suffice for 255 * 255 + 127, since images may be large.
    """
    colour, alpha = tf.cast(colour, tf.uint16), tf.cast(alpha, tf.uint16)
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the image upright, given its EXIF orientation (1 to 8)."""

    def turned() -> tf.Tensor:
        # 5 to 8 have rows and columns swapped; then the image is mirrored along 0, 1 or 2 axes.
        laid = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        rows = tf.reduce_any(orientation == [3, 4, 7, 8])
        columns = tf.reduce_any(orientation == [2, 3, 6, 7])
        return tf.reverse(laid, tf.boolean_mask([0, 1], tf.stack([rows, columns])))

    return tf.cond(orientation > 1, turned, lambda: image)
