"""Reads the headers of encoded images inside the graph, before decoding.

All functions work on one string scalar and never fail on broken bytes: bytes past the end read as
zeros. They copy only a few bytes, however long the image is.
"""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.serving.confined import Attempt

# Limit of the segments before the pixels of a JPEG, and of the extensions of a GIF.
_MOST_SEGMENTS = 64
# Limit of the entries in the first directory of EXIF; cameras write about twenty.
_MOST_ENTRIES = 128
_ORIENTATION_TAG = 0x0112
# Patterns of bytes. Images that XMP rotates, or with a profile not named sRGB, are not supported.
_TURNED_BY_XMP = r'tiff:Orientation(?:="|>)[2-8]'
_NAMES_SRGB = r"s\x00?R\x00?G\x00?B"
_COMPRESSED_XMP = r"zTXtXML|iTXtXML:com\.adobe\.xmp\x00\x01"
# Encoders split pixels into chunks of 8 KiB or more.
_MOST_CHUNKS = 1 << 13
# Compressed bytes; the uncompressed profile may be a thousand times longer.
_LONGEST_PROFILE = 1 << 16

_State = tuple[tf.Tensor, ...]


def read_bytes(encoded: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns `count` bytes of a string from `at` on as int32; bytes past its end are zeros."""
    found = tf.strings.substr(encoded, tf.minimum(at, tf.strings.length(encoded)), count)
    return tf.cast(tf.io.decode_raw(found, tf.uint8, fixed_length=count), tf.int32)


def big_endian(values: tf.Tensor) -> tf.Tensor:
    """Returns the number in int32 [..., n] bytes, most significant first: int64 [...]."""
    weights = [1 << (8 * place) for place in reversed(range(values.shape[-1]))]
    return tf.reduce_sum(tf.cast(values, tf.int64) * tf.constant(weights, tf.int64), axis=-1)


def little_endian(values: tf.Tensor) -> tf.Tensor:
    """Returns the number in int32 [..., n] bytes, least significant first: int64 [...]."""
    return big_endian(values[..., ::-1])


def jpeg_metadata(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Reads all segments of a JPEG before its first scan.

    Args:
      encoded: string scalar, a JPEG.

    Returns:
      The orientation, int32, 1 to 8; whether it is certain and the colours are sRGB, bool; and
      where the first scan begins, int32.
    """

    def is_segment(*state: tf.Tensor) -> tf.Tensor:
        head, marker = state[-1], state[-1][1]
        # SOI, EOI and similar markers do not occur here; the pixels begin at SOS (0xDA).
        return (head[0] == 0xFF) & (marker >= 0xC0) & ((marker < 0xD0) | (marker > 0xDA))

    def next_segment(at: tf.Tensor, exif: tf.Tensor, profile: tf.Tensor, head: tf.Tensor) -> _State:
        is_exif = (head[1] == 0xE1) & tf.reduce_all(head[4:10] == list(b"Exif\0\0"))
        is_profile = (head[1] == 0xE2) & tf.reduce_all(head[4:16] == list(b"ICC_PROFILE\0"))
        exif = tf.where(is_exif & (exif == 0), at, exif)
        profile = tf.where(is_profile & (profile == 0), at, profile)
        length = tf.maximum(tf.cast(big_endian(head[2:4]), tf.int32), 2)
        # Any number of 0xFF may precede a marker.
        at += tf.where(head[1] == 0xFF, 1, 2 + length)
        return at, exif, profile, read_bytes(encoded, at, 16)

    none, start = tf.constant(0), tf.constant(2)
    at, exif, profile, head = tf.while_loop(
        is_segment,
        next_segment,
        (start, none, none, read_bytes(encoded, start, 16)),
        maximum_iterations=_MOST_SEGMENTS,
    )
    is_whole = (head[0] == 0xFF) & (head[1] == 0xDA)

    def content(segment: tf.Tensor) -> tf.Tensor:
        length = big_endian(read_bytes(encoded, segment + 2, 2))
        start = tf.minimum(segment + 4, tf.strings.length(encoded))
        return tf.strings.substr(encoded, start, tf.maximum(tf.cast(length, tf.int32) - 2, 0))

    orientation, is_clear = _orientation(
        tf.cond(exif > 0, lambda: content(exif), lambda: b""),
        _contains(tf.strings.substr(encoded, 0, at), _TURNED_BY_XMP),
    )
    is_srgb = (profile == 0) | _contains(content(profile), _NAMES_SRGB)
    return orientation, is_whole & is_clear & is_srgb, at


def png_metadata(encoded: tf.Tensor, attempt: Attempt) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the metadata of a PNG, before and after its pixels.

    Args:
      encoded: string scalar, a PNG.
      attempt: runs the decompression, which fails on broken data.

    Returns:
      The orientation, int32, 1 to 8; and whether it is certain and the colours are sRGB, bool.
    """
    end = tf.strings.length(encoded)

    def next_chunk(at: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor, profile: tf.Tensor) -> _State:
        name = tf.strings.substr(encoded, at + 4, 4)
        keyword = tf.strings.substr(encoded, at + 8, 18)
        # ImageMagick writes EXIF as text, which cannot be parsed here.
        is_exif = (name == b"eXIf") | (keyword == b"Raw profile type e")
        exif = tf.where(is_exif, at, exif)
        xmp = tf.where(keyword == b"XML:com.adobe.xmp\0", at, xmp)
        profile = tf.where(name == b"iCCP", at, profile)
        at = tf.where(name == b"IEND", end, at + 12 + length_at(at))
        return at, exif, xmp, profile

    def length_at(at: tf.Tensor) -> tf.Tensor:
        number = tf.strings.substr(encoded, at, 4)
        length = tf.io.decode_raw(number, tf.int32, little_endian=False, fixed_length=4)[0]
        # The number is read as signed 32 bits: negative lengths reach past the end.
        return tf.where(length < 0, end, tf.minimum(length, end))

    none = tf.constant(0)
    at, exif, xmp, profile = tf.while_loop(
        # A chunk that is cut off within its name is not read, so the end is not reached.
        lambda at, *_: at + 8 <= end,
        next_chunk,
        (tf.constant(8), none, none, none),
        maximum_iterations=_MOST_CHUNKS,
    )

    def content(chunk: tf.Tensor) -> tf.Tensor:
        length = tf.where(chunk > 0, length_at(chunk), 0)
        return tf.strings.substr(encoded, tf.minimum(chunk + 8, end), length)

    text = tf.strings.substr(encoded, xmp + 4, 4) + content(xmp)
    orientation, is_clear = _orientation(content(exif), _contains(text, _TURNED_BY_XMP))
    # The profile's name, the compression method, and the compressed profile.
    packed = tf.strings.regex_replace(
        tf.strings.substr(content(profile), 0, _LONGEST_PROFILE),
        r"^[^\x00]+\x00\x00",
        "",
        replace_global=False,
    )
    is_srgb = tf.cond(
        profile > 0,
        lambda: _contains(attempt(_unpack, packed, tf.constant("")), _NAMES_SRGB),
        lambda: True,
    )
    is_read = (at >= end) & ~_contains(text, _COMPRESSED_XMP)
    return orientation, is_clear & is_srgb & is_read


def _unpack(packed: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_compressed(packed, "ZLIB")


def _contains(text: tf.Tensor, pattern: str) -> tf.Tensor:
    """Returns whether any part of a string matches, bool."""
    return tf.strings.regex_full_match(text, rf"\C*(?:{pattern})\C*")


def _orientation(exif: tf.Tensor, turned_by_xmp: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns an orientation, int32, 1 to 8, and whether it is certain.

    EXIF is a small TIFF file. XMP counts if EXIF has no orientation.
    """
    tiff = tf.strings.regex_replace(exif, r"^(?:Exif\x00\x00)+", "", replace_global=False)
    head = read_bytes(tiff, 0, 8)
    is_little = tf.reduce_all(head[:4] == [0x49, 0x49, 0x2A, 0])
    is_tiff = is_little | tf.reduce_all(head[:4] == [0x4D, 0x4D, 0, 0x2A])

    def number(values: tf.Tensor) -> tf.Tensor:
        return tf.where(is_little, little_endian(values), big_endian(values))

    length = tf.cast(tf.strings.length(tiff), tf.int64)
    directory = tf.cast(tf.minimum(number(head[4:]), length), tf.int32)
    count = number(read_bytes(tiff, directory, 2))
    entries = tf.reshape(read_bytes(tiff, directory + 2, 12 * _MOST_ENTRIES), [-1, 12])
    # Entries that are cut off are ignored.
    places = tf.range(_MOST_ENTRIES, dtype=tf.int64)
    is_whole = tf.cast(directory, tf.int64) + 2 + 12 * (places + 1) <= length
    tagged = (places < count) & is_whole & (number(entries[:, :2]) == _ORIENTATION_TAG)
    # One number, short (3) or long (4).
    kinds = number(entries[:, 2:4])
    is_short = kinds == 3
    is_read = tagged & (is_short | (kinds == 4)) & (number(entries[:, 4:8]) == 1)
    values = tf.where(is_short, number(entries[:, 8:10]), number(entries[:, 8:12]))
    value = tf.reduce_max(tf.where(is_read, values, 0))
    tags = tf.math.count_nonzero(tagged)
    is_one = (tags == 1) & tf.reduce_any(is_read)
    is_clear = is_tiff & (count <= _MOST_ENTRIES) & (is_one | (tags == 0) & ~turned_by_xmp)
    is_clear = tf.where(length > 0, is_clear, ~turned_by_xmp)
    # Other values are invalid and mean upright.
    return tf.cast(tf.where(value <= 8, tf.maximum(value, 1), 1), tf.int32), is_clear


def gif_first_frame(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts an animation after its first frame, and makes transparent pixels of that frame white.

    TensorFlow decodes all frames of a GIF, and makes transparent pixels black.

    Args:
      encoded: string scalar, a GIF.

    Returns:
      A GIF of one frame, string, and whether that frame exists and fills the canvas, bool: the
      area around a smaller one has no colour.
    """
    head = read_bytes(encoded, 0, 13)
    colours_at = tf.constant(13)
    length = tf.strings.length(encoded)

    def next_extension(at: tf.Tensor, control: tf.Tensor, kind: tf.Tensor) -> _State:
        # The last graphic control extension before a frame applies to it.
        control = tf.where(kind[1] == 0xF9, at, control)
        at = _behind_blocks(encoded, at + 2)
        return at, control, read_bytes(encoded, at, 2)

    start = colours_at + _colour_table_size(head[10])
    frame, control, kind = tf.while_loop(
        lambda at, _, kind: (kind[0] == 0x21) & (at < length),
        next_extension,
        (start, tf.constant(0), read_bytes(encoded, start, 2)),
        maximum_iterations=_MOST_SEGMENTS,
    )
    descriptor = read_bytes(encoded, frame, 10)
    own_colours = _colour_table_size(descriptor[9])
    end = _behind_blocks(encoded, frame + 10 + own_colours + 1)
    fills = tf.reduce_all(descriptor[1:5] == 0) & tf.reduce_all(descriptor[5:9] == head[6:10])
    whole = tf.strings.substr(encoded, 0, tf.minimum(end, length)) + b"\x3b"

    graphic = read_bytes(encoded, control, 7)

    def without_transparency() -> tf.Tensor:
        colours = tf.where(own_colours > 0, frame + 10, colours_at)
        white = colours + 3 * graphic[6]
        flags = tf.gather(tf.constant([bytes([n]) for n in range(256)]), graphic[3] & 0xFE)
        return _overwrite(_overwrite(whole, control + 3, flags, 1), white, b"\xff\xff\xff", 3)

    is_frame = kind[0] == 0x2C
    is_transparent = is_frame & (control > 0) & (graphic[3] % 2 == 1)
    return tf.cond(is_transparent, without_transparency, lambda: whole), is_frame & fills


def _colour_table_size(flags: tf.Tensor) -> tf.Tensor:
    """Returns the size of a GIF's colour table in bytes, from its flags."""
    return tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def _behind_blocks(encoded: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Returns where a GIF continues after a series of length-prefixed blocks."""

    def next_block(at: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        at += 1 + size
        return at, read_bytes(encoded, at, 1)[0]

    at, _ = tf.while_loop(lambda _, size: size > 0, next_block, (at, read_bytes(encoded, at, 1)[0]))
    return at + 1


def _overwrite(text: tf.Tensor, at: tf.Tensor, by: tf.Tensor | bytes, count: int) -> tf.Tensor:
    """Returns a string with `count` bytes from `at` on replaced."""
    length = tf.strings.length(text)
    before = tf.strings.substr(text, 0, tf.minimum(at, length))
    return before + by + tf.strings.substr(text, tf.minimum(at + count, length), length)
