"""Decoding of images by strangers inside the graph: within bounds, upright, on white.

`prepare` makes the images that models are trained on by Pillow; here the same is made of the
formats that TensorFlow decodes. What cannot be made right fails, for the caller to confine the
failure to the one image.
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

# A JPEG is decoded at a half, a quarter or an eighth as long as its longest side keeps so many
# pixels, and twice those that the model sees: faster, in less memory, and the filter that follows
# hides the difference. Prepared images are usually smaller: decoded as in evaluation.
_ENOUGH_PIXELS = 640
_RATIOS = (1, 2, 4, 8)
# Progressive JPEGs have about ten scans. Each may be a few bytes and costs a pass over all pixels.
_MOST_SCANS = 32
_MOST_BYTES = 32 * 2**20
# All tables of a usual JPEG, up to its first scan, have fewer bytes.
_HEAD = 2048
# Each takes memory; what more cores could do, requests at the same time have them do.
DECODED_AT_ONCE = 4
"""Images of one request."""

_Fit = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
# From an image to a square of one size, and height and width of what is in it.


def decode_each(encoded: tf.Tensor, size: int, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images one by one, so that a broken one harms no other.

    Args:
      encoded: string [batch]; each JPEG (grey or RGB), PNG, GIF (its first frame) or BMP (8,
        24 or 32 bits, not compressed).
      size: side of the square that they are fitted into, in pixels.
      max_pixels: images of more are refused before they are decoded.

    Returns:
      uint8 [batch, size, size, 3] and bool [batch], false (and black) where there is no image, or
      one that is broken, too large, or of a kind that would come out wrong. An empty request gives
      one row, as convolutions fail on a batch of none.
    """

    def fit(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return fit_square(image, size), tf.shape(image)[:2]

    squares, sides = _decode_each(encoded, fit, size, max(_ENOUGH_PIXELS, 2 * size), max_pixels)
    return squares, sides[:, 0] > 0


def decode_each_in_corner(
    encoded: tf.Tensor, side: int, max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images as `decode_each` does, but to cut out of them: enlarged is none.

    Args:
      encoded: as in `decode_each`.
      side: images are shrunk to it, and then lie in the upper left corner of a square of it.
      max_pixels: as in `decode_each`.

    Returns:
      uint8 [batch, side, side, 3], and height and width of each upright image in it, int32
      [batch, 2], zeros where `decode_each` gives false.
    """
    fit = functools.partial(fit_corner, side=side)
    return _decode_each(encoded, fit, side, side, max_pixels)


def _decode_each(
    encoded: tf.Tensor, fit: _Fit, side: int, enough: int, max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes images one by one: squares of a side, and height and width of what is in them."""
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
    """Does what `_decode_each` does with one image: steps that may fail are confined by each."""
    image = _decode(encoded, kind, decoders)
    square, sides = tf.cond(tf.size(image) > 0, lambda: fit(image), lambda: _no_image(side))
    return square[tf.newaxis], sides[tf.newaxis]


def _decode_many(
    encoded: tf.Tensor, kinds: tf.Tensor, fit: _Fit, side: int, decoders: list[ConcreteFunction]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Does what `_decode_each` does with any number of images.

    Those that fail are left out, and the others find their places by their numbers.
    """
    count = tf.shape(encoded)[0]
    images = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded, kinds))
    # One that always is there, behind the last, and stands in for those that are left out.
    stand_in = tf.data.Dataset.from_tensors((count, *_no_image(side)))
    found = images.map(
        lambda number, one, kind: (number, *fit(_decode(one, kind, decoders))),
        num_parallel_calls=DECODED_AT_ONCE,
        deterministic=True,
    )
    both = found.ignore_errors(log_warning=False).concatenate(stand_in)
    numbers, squares, sides = both.batch(tf.cast(count + 1, tf.int64)).get_single_element()
    # Without images one row is left.
    places, rows = numbers[:-1, tf.newaxis], tf.maximum(count, 1)
    last = tf.shape(numbers)[0] - 1
    order = tf.tensor_scatter_nd_update(tf.fill([rows], last), places, tf.range(last))
    return tf.gather(squares, order), tf.gather(sides, order)


def _no_image(side: int) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.zeros([side, side, 3], tf.uint8), tf.zeros([2], tf.int32)


def _kinds(encoded: tf.Tensor) -> tf.Tensor:
    """Returns what images are, string [batch], by their first bytes: the index of a decoder.

    For all at once: in TensorFlow many small steps take longer than decoding a small image.
    """
    head = tf.io.decode_raw(tf.strings.substr(encoded, 0, _HEAD), tf.uint8, fixed_length=_HEAD)

    def starts(magic: bytes) -> tf.Tensor:
        return tf.cast(tf.reduce_all(head[:, : len(magic)] == list(magic), axis=1), tf.int32)

    # Most JPEGs have a JFIF segment, tables, and pixels: nothing that could turn them.
    is_marker, marker = head[:, 4:-1] == 0xFF, head[:, 5:]
    has_metadata = tf.reduce_any(
        is_marker & ((marker >= 0xE0) & (marker <= 0xEF) | (marker == 0xFE)), axis=1
    )
    has_scan = tf.reduce_any(is_marker & (marker == 0xDA), axis=1)
    is_plain = starts(b"\xff\xd8\xff\xe0\0\x10") * tf.cast(has_scan & ~has_metadata, tf.int32)
    # What is of no other kind is decoded as JPEG, and fails there.
    return is_plain + 2 * starts(b"\x89PNG") + 3 * starts(b"GIF8") + 4 * starts(b"BM")


def _decoders(enough: int, max_pixels: int, attempt: Attempt) -> list[ConcreteFunction]:
    """Returns what decodes an image of each kind, upright and on white.

    Args:
      enough: pixels of the longest side, which no JPEG is decoded smaller than.
      max_pixels: as in `decode_each`.
      attempt: takes the steps that fail where bytes are no image; if it then lets the others go
        on, no pixels come out.
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
    # As `tf.switch_case`, which however puts all decoders into one graph and walks through those
    # not taken as well: slower than decoding a small image.
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
    """Decodes a JPEG as it lies; from `start` on, no metadata is before its pixels."""
    # Where there is none to be read, there is nothing to be decoded either.
    shape = attempt(tf.image.extract_jpeg_shape, encoded, tf.zeros([3], tf.int32))
    sides = shape[:2]
    values = tf.io.decode_raw(encoded, tf.uint8)
    scans = tf.math.count_nonzero(_marks(values, 0xDA))
    encoded = tf.cond(
        scans <= _MOST_SCANS, lambda: encoded, lambda: _cut_behind(encoded, values, start)
    )
    is_right = tf.reduce_prod(tf.cast(sides, tf.int64)) <= max_pixels
    # Without Adobe's marker decoders are at odds about which way round CMYK is.
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
    """Returns at which bytes of a JPEG such a marker stands, bool; it may be by chance."""
    return (values[:-1] == 0xFF) & (values[1:] == marker)


def _cut_behind(encoded: tf.Tensor, values: tf.Tensor, start: tf.Tensor | int) -> tf.Tensor:
    """Returns a JPEG without what is behind it; nothing if it has too many scans itself.

    Telephones put videos and further images behind an image, where marks stand by chance.
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
    # Where an image has no alpha, TensorFlow fills in the largest number of the image's bits.
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
    """Returns whether an image has pixels, and not too many; sides are below 2^31."""
    return (height > 0) & (width > 0) & (height * width <= max_pixels)


def _only_if(condition: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Returns the bytes, or none, which no decoder takes.

    Other than by an assertion, no decoder can start before the condition is known.
    """
    return tf.where(condition, encoded, b"")


def _compose(colour: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Returns an image on white: uint8 [height, width, 3] of colour and alpha [..., 1].

    In 16 bits, which hold 255 * 255 + 127, and not in more: images may be large.
    """
    colour, alpha = tf.cast(colour, tf.uint16), tf.cast(alpha, tf.uint16)
    return tf.cast((colour * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _turn_upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the image as it is to be looked at, by its EXIF orientation (1 to 8)."""

    def turned() -> tf.Tensor:
        # 5 to 8 have rows and columns exchanged; then it is mirrored along none, one or both.
        laid = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        rows = tf.reduce_any(orientation == [3, 4, 7, 8])
        columns = tf.reduce_any(orientation == [2, 3, 6, 7])
        return tf.reverse(laid, tf.boolean_mask([0, 1], tf.stack([rows, columns])))

    return tf.cond(orientation > 1, turned, lambda: image)
