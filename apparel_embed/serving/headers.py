"""What the headers of encoded images say, read inside the graph before anything is decoded.

Everything works on one string scalar and never fails on broken bytes: what lies behind the end
reads as zeros. Only few bytes are copied, however long the image.
"""

from __future__ import annotations

import tensorflow as tf

from apparel_embed.serving.confined import Attempt

# Segments of a JPEG before its pixels, or extensions of a GIF, that are looked through.
_MOST_SEGMENTS = 64
# Entries of the first directory of EXIF that are looked at; cameras write some twenty.
_MOST_ENTRIES = 128
_ORIENTATION_TAG = 0x0112
# Patterns of bytes. An image that XMP turns, or whose colours are not sRGB by their profile's name,
# cannot be made right here.
_TURNED_BY_XMP = r'tiff:Orientation(?:="|>)[2-8]'
_NAMES_SRGB = r"s\x00?R\x00?G\x00?B"
_COMPRESSED_XMP = r"zTXtXML|iTXtXML:com\.adobe\.xmp\x00\x01"
# Encoders cut pixels into chunks of 8 KiB or more.
_MOST_CHUNKS = 1 << 13
# Bytes; unpacked they may be a thousand times as many.
_LONGEST_PROFILE = 1 << 16

_State = tuple[tf.Tensor, ...]


def read_bytes(encoded: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """Returns `count` bytes of a string from `at` on as int32; those behind its end are zeros."""
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
      The orientation, int32, 1 to 8; whether that and sRGB are all there is to know, bool; and
      where the first scan begins, int32.
    """

    def is_segment(*state: tf.Tensor) -> tf.Tensor:
        head, marker = state[-1], state[-1][1]
        # Of SOI, EOI and the like there is none here; at SOS (0xDA) pixels begin.
        return (head[0] == 0xFF) & (marker >= 0xC0) & ((marker < 0xD0) | (marker > 0xDA))

    def next_segment(at: tf.Tensor, exif: tf.Tensor, profile: tf.Tensor, head: tf.Tensor) -> _State:
        is_exif = (head[1] == 0xE1) & tf.reduce_all(head[4:10] == list(b"Exif\0\0"))
        is_profile = (head[1] == 0xE2) & tf.reduce_all(head[4:16] == list(b"ICC_PROFILE\0"))
        exif = tf.where(is_exif & (exif == 0), at, exif)
        profile = tf.where(is_profile & (profile == 0), at, profile)
        length = tf.maximum(tf.cast(big_endian(head[2:4]), tf.int32), 2)
        # Any number of 0xFF may stand before a marker.
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
    """Reads the metadata of a PNG, before its pixels and behind them.

    Args:
      encoded: string scalar, a PNG.
      attempt: unpacks what may not be packed.

    Returns:
      The orientation, int32, 1 to 8; and whether that and sRGB are all there is to know, bool.
    """
    end = tf.strings.length(encoded)

    def next_chunk(at: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor, profile: tf.Tensor) -> _State:
        name = tf.strings.substr(encoded, at + 4, 4)
        keyword = tf.strings.substr(encoded, at + 8, 18)
        # ImageMagick writes EXIF as text, which is none that can be read here.
        is_exif = (name == b"eXIf") | (keyword == b"Raw profile type e")
        exif = tf.where(is_exif, at, exif)
        xmp = tf.where(keyword == b"XML:com.adobe.xmp\0", at, xmp)
        profile = tf.where(name == b"iCCP", at, profile)
        at = tf.where(name == b"IEND", end, at + 12 + length_at(at))
        return at, exif, xmp, profile

    def length_at(at: tf.Tensor) -> tf.Tensor:
        number = tf.strings.substr(encoded, at, 4)
        length = tf.io.decode_raw(number, tf.int32, little_endian=False, fixed_length=4)[0]
        # A number of 32 bits with a sign: what is below 0 reaches beyond the end.
        return tf.where(length < 0, end, tf.minimum(length, end))

    none = tf.constant(0)
    at, exif, xmp, profile = tf.while_loop(
        # Of a chunk that is cut off within its name nothing is read: the end is not reached.
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
    # Its name, the kind of compression, and compressed in it what names the colours.
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
    """Returns whether any bytes of a string match, bool."""
    return tf.strings.regex_full_match(text, rf"\C*(?:{pattern})\C*")


def _orientation(exif: tf.Tensor, turned_by_xmp: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns an orientation, int32, 1 to 8, and whether it is known for certain.

    EXIF is a small TIFF file. XMP counts where EXIF says nothing.
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
    # Of an entry that is cut off, nothing is known.
    places = tf.range(_MOST_ENTRIES, dtype=tf.int64)
    is_there = tf.cast(directory, tf.int64) + 2 + 12 * (places + 1) <= length
    tagged = (places < count) & is_there & (number(entries[:, :2]) == _ORIENTATION_TAG)
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
    # Other values mean nothing.
    return tf.cast(tf.where(value <= 8, tf.maximum(value, 1), 1), tf.int32), is_clear


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
    colours_at = tf.constant(13)
    length = tf.strings.length(encoded)

    def next_extension(at: tf.Tensor, control: tf.Tensor, kind: tf.Tensor) -> _State:
        # The last graphic control before a frame is that frame's.
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
    """Returns the bytes of a GIF's colour table, by the flags that announce it."""
    return tf.where(flags >= 0x80, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def _behind_blocks(encoded: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Returns where a GIF continues behind a series of blocks, each led by its length."""

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
