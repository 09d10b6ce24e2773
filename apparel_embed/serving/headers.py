"""What the headers of encoded pictures say, read inside the graph before anything is decoded.

Everything works on one string scalar and never fails on broken bytes: what lies behind the end
reads as zeros. Only few bytes are copied, however long the picture.
"""

from __future__ import annotations

import tensorflow as tf

# Segments of a JPEG, or chunks of a PNG, that are looked through for EXIF.
_MOST_SEGMENTS = 64
# Entries of the first directory of EXIF that are looked at; cameras write some twenty.
_MOST_ENTRIES = 128
_ORIENTATION_TAG = 0x0112


def read_bytes(encoded: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns bytes of a string as int32 [count]; those behind its end are zeros.

    Args:
      encoded: string scalar.
      at: int32 scalar, 0 or more.
      count: how many.
    """
    found = tf.strings.substr(encoded, tf.minimum(at, tf.strings.length(encoded)), count)
    return tf.cast(tf.io.decode_raw(found, tf.uint8, fixed_length=count), tf.int32)


def big_endian(values: tf.Tensor) -> tf.Tensor:
    """Returns the number in int32 [..., n] bytes, most significant first: int64 [...]."""
    weights = [1 << (8 * place) for place in reversed(range(values.shape[-1]))]
    return tf.reduce_sum(tf.cast(values, tf.int64) * tf.constant(weights, tf.int64), axis=-1)


def little_endian(values: tf.Tensor) -> tf.Tensor:
    """Returns the number in int32 [..., n] bytes, least significant first: int64 [...]."""
    return big_endian(values[..., ::-1])


def jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a JPEG: int32, 1 to 8; 1 where there is none."""

    def is_application_segment(at: tf.Tensor, exif: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
        del at
        # EXIF stands in one of the segments APP0 to APP15, or COM, that a file begins with.
        marker = (head[1] >= 0xE0) & (head[1] <= 0xEF) | (head[1] == 0xFE)
        return (exif == 0) & (head[0] == 0xFF) & marker

    def next_segment(
        at: tf.Tensor, exif: tf.Tensor, head: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        is_exif = (head[1] == 0xE1) & tf.reduce_all(head[4:] == list(b"Exif\0\0"))
        exif = tf.where(is_exif, at + 10, exif)
        at += 2 + tf.maximum(tf.cast(big_endian(head[2:4]), tf.int32), 2)
        return at, exif, read_bytes(encoded, at, 10)

    start = tf.constant(2)
    _, exif, _ = tf.while_loop(
        is_application_segment,
        next_segment,
        (start, tf.constant(0), read_bytes(encoded, start, 10)),
        maximum_iterations=_MOST_SEGMENTS,
    )
    return tf.cond(exif > 0, lambda: _orientation(encoded, exif), lambda: 1)


def png_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of a PNG, from a chunk before its pixels: int32, 1 to 8."""

    def is_before_pixels(at: tf.Tensor, exif: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
        is_pixels = tf.reduce_all(head[4:] == list(b"IDAT"))
        return (exif == 0) & (at < tf.strings.length(encoded)) & ~is_pixels

    def next_chunk(
        at: tf.Tensor, exif: tf.Tensor, head: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        exif = tf.where(tf.reduce_all(head[4:] == list(b"eXIf")), at + 8, exif)
        # No longer than the picture, so that the sum stays a number of 32 bits.
        length = tf.cast(tf.strings.length(encoded), tf.int64)
        at += 12 + tf.cast(tf.minimum(big_endian(head[:4]), length), tf.int32)
        return at, exif, read_bytes(encoded, at, 8)

    start = tf.constant(8)
    _, exif, _ = tf.while_loop(
        is_before_pixels,
        next_chunk,
        (start, tf.constant(0), read_bytes(encoded, start, 8)),
        maximum_iterations=_MOST_SEGMENTS,
    )
    return tf.cond(exif > 0, lambda: _orientation(encoded, exif), lambda: 1)


def _orientation(encoded: tf.Tensor, tiff: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in EXIF, a small TIFF file at `tiff`; 1 where it is unreadable."""
    head = read_bytes(encoded, tiff, 8)
    is_little = tf.reduce_all(head[:4] == [0x49, 0x49, 0x2A, 0])
    is_big = tf.reduce_all(head[:4] == [0x4D, 0x4D, 0, 0x2A])

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little, little_endian(values), big_endian(values))

    length = tf.cast(tf.strings.length(encoded), tf.int64)
    directory = tiff + tf.cast(tf.minimum(number(head[4:]), length), tf.int32)
    count = number(read_bytes(encoded, directory, 2))
    entries = tf.reshape(read_bytes(encoded, directory + 2, 12 * _MOST_ENTRIES), [-1, 12])
    # An orientation is one short: tag, type 3, count 1, value.
    wanted = (
        (tf.range(_MOST_ENTRIES, dtype=tf.int64) < count)
        & (number(entries[:, :2]) == _ORIENTATION_TAG)
        & (number(entries[:, 2:4]) == 3)
        & (number(entries[:, 4:8]) == 1)
    )
    value = tf.cast(tf.reduce_max(tf.where(wanted, number(entries[:, 8:10]), 0)), tf.int32)
    return tf.where((is_little | is_big) & (value >= 1) & (value <= 8), value, 1)


def gif_first_frame(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts an animation after its first frame, and makes that frame's transparency white.

    TensorFlow decodes all frames of a GIF, and paints the transparent black.

    Args:
      encoded: string scalar, a GIF.

    Returns:
      A GIF of one frame, string, and whether that frame is there and fills the canvas, bool: what
      lies around a smaller one has no colour.
    """
    head = read_bytes(encoded, 0, 13)
    width_and_height = head[6:10]
    colours_at = tf.constant(13)
    length = tf.strings.length(encoded)

    def is_before_frame(at: tf.Tensor, control: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
        del control
        return (kind[0] == 0x21) & (at < length)

    def next_extension(
        at: tf.Tensor, control: tf.Tensor, kind: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        # The last graphic control before a frame is that frame's.
        control = tf.where(kind[1] == 0xF9, at, control)
        at = _behind_blocks(encoded, at + 2)
        return at, control, read_bytes(encoded, at, 2)

    start = colours_at + _colour_table_size(head[10])
    frame, control, kind = tf.while_loop(
        is_before_frame,
        next_extension,
        (start, tf.constant(0), read_bytes(encoded, start, 2)),
        maximum_iterations=_MOST_SEGMENTS,
    )
    descriptor = read_bytes(encoded, frame, 10)
    own_colours = _colour_table_size(descriptor[9])
    end = _behind_blocks(encoded, frame + 10 + own_colours + 1)
    fills = tf.reduce_all(descriptor[1:5] == 0) & tf.reduce_all(descriptor[5:9] == width_and_height)
    whole = tf.strings.substr(encoded, 0, tf.minimum(end, length)) + b"\x3b"

    def without_transparency() -> tf.Tensor:
        graphic = read_bytes(encoded, control, 7)
        colours = tf.where(own_colours > 0, frame + 10, colours_at)
        white = colours + 3 * graphic[6]
        flags = tf.gather(tf.constant([bytes([n]) for n in range(256)]), graphic[3] & 0xFE)
        return _overwrite(_overwrite(whole, control + 3, flags, 1), white, b"\xff\xff\xff", 3)

    is_transparent = (control > 0) & (read_bytes(encoded, control, 4)[3] % 2 == 1)
    whole = tf.cond(is_transparent & (kind[0] == 0x2C), without_transparency, lambda: whole)
    return whole, (kind[0] == 0x2C) & fills


def _colour_table_size(flags: tf.Tensor) -> tf.Tensor:
    """Returns the bytes of a GIF's colour table, by the flags that announce it."""
    return tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def _behind_blocks(encoded: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Returns where a GIF goes on behind a series of blocks, each led by its length."""

    def next_block(at: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        at += 1 + size
        return at, read_bytes(encoded, at, 1)[0]

    at, _ = tf.while_loop(lambda _, size: size > 0, next_block, (at, read_bytes(encoded, at, 1)[0]))
    return at + 1


def _overwrite(text: tf.Tensor, at: tf.Tensor, by: tf.Tensor | bytes, count: int) -> tf.Tensor:
    """Returns a string of which `count` bytes from `at` on are others."""
    length = tf.strings.length(text)
    before = tf.strings.substr(text, 0, tf.minimum(at, length))
    return before + by + tf.strings.substr(text, tf.minimum(at + count, length), length)
