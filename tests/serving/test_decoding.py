"""Untrusted images: each is decoded as in `prepare`, or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from image_kinds import KINDS
from PIL import Image
from serving_models import SIZE, drawn, encoded, exif

from apparel_embed.data.images import ImageSettings, prepare_image
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.serving.decoding import decode_each

MAX_PIXELS = 1_000_000
RGB = drawn()
TRANSPARENT = RGB.copy()
TRANSPARENT.putalpha(Image.linear_gradient("L").resize(RGB.size))
PALETTE = RGB.quantize(16)
GREY_16 = Image.fromarray((np.asarray(RGB.convert("L"), np.uint16) * 257 + 99).clip(0, 65535))


def gif(*frames, **options):
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)


def with_segment(jpeg, marker, content):
    """Inserts a segment before all others."""
    return (
        jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]
    )


def big_endian_exif(orientation):
    entries = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0MM\0\x2a" + struct.pack(">I", 8) + entries + b"\0\0\0\0"


RIGHT = {
    "JPEG": encoded(RGB),
    "progressive JPEG": encoded(RGB, progressive=True),
    "grey JPEG": encoded(RGB.convert("L")),
    "JPEG of 4:2:0": encoded(RGB, subsampling=2),
    "JPEG of many pixels": encoded(drawn(1300, 700)),
    "narrow JPEG": encoded(drawn(20_000, 20)),
    "PNG": encoded(RGB, "PNG"),
    "grey PNG": encoded(RGB.convert("L"), "PNG"),
    "PNG of 16 bits": encoded(GREY_16, "PNG"),
    "PNG of 1 bit": encoded(RGB.convert("L").point(lambda v: 255 * (v > 120)).convert("1"), "PNG"),
    "PNG with alpha": encoded(TRANSPARENT, "PNG"),
    "grey PNG with alpha": encoded(TRANSPARENT.convert("LA"), "PNG"),
    "PNG with a palette": encoded(PALETTE, "PNG"),
    "PNG with a palette of 2 bits": encoded(RGB.quantize(4), "PNG", bits=2),
    "PNG with a transparent colour of a palette": encoded(PALETTE, "PNG", transparency=3),
    "PNG with a transparent colour": encoded(RGB, "PNG", transparency=RGB.getpixel((9, 9))),
    "wide PNG": encoded(drawn(20_000, 30), "PNG"),
    "one pixel": encoded(drawn(1, 1), "PNG"),
    "GIF": gif(PALETTE),
    "interlaced GIF": gif(PALETTE, interlace=1),
    "animated GIF": gif(PALETTE, PALETTE.rotate(90), PALETTE.rotate(180), loop=0),
    "transparent GIF": gif(PALETTE, transparency=3),
    "animated transparent GIF": gif(PALETTE, PALETTE.rotate(180), loop=0, transparency=3),
    "animated GIF whose second frame is broken": gif(PALETTE, PALETTE.rotate(180))[:-150],
    "BMP": encoded(RGB, "BMP"),
    "grey BMP": encoded(RGB.convert("L"), "BMP"),
    "BMP with a palette": encoded(PALETTE, "BMP"),
    "BMP of 32 bits": encoded(RGB.convert("RGBA"), "BMP"),
    **{f"JPEG rotated by EXIF {n}": encoded(RGB, exif=exif(n)) for n in range(1, 9)},
    **{f"PNG rotated by EXIF {n}": encoded(RGB, "PNG", exif=exif(n)) for n in range(1, 9)},
    "rotated by EXIF of the other byte order": with_segment(encoded(RGB), 0xE1, big_endian_exif(6)),
    "rotated by EXIF after another segment": with_segment(
        encoded(RGB, exif=exif(6)), 0xED, b"x" * 60_000
    ),
    "rotated by broken EXIF": with_segment(encoded(RGB), 0xE1, big_endian_exif(6)[:-9]),
    "rotated by invalid EXIF": with_segment(encoded(RGB), 0xE1, big_endian_exif(9)),
}

TOP_DOWN = bytearray(encoded(RGB, "BMP"))
TOP_DOWN[22:26] = struct.pack("<i", -RGB.height)


def png_of(width, height):
    """A PNG that claims a size without having the pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + encoded(RGB, "PNG")[33:]


def many_scans():
    jpeg = encoded(RGB, progressive=True)
    start = jpeg.rindex(b"\xff\xda")
    return jpeg[:start] + 40 * jpeg[start:-2] + jpeg[-2:]


def gif_of_part():
    """A GIF whose frame does not fill its canvas."""
    whole = bytearray(gif(PALETTE))
    whole[6:8] = struct.pack("<H", RGB.width + 9)
    return bytes(whole)


WRONG = {
    "nothing": b"",
    "text": b"not an image at all",
    "zeros": bytes(5000),
    "start of a JPEG": b"\xff\xd8\xff\xe0",
    "start of a PNG": b"\x89PNG\r\n\x1a\n",
    "start of a GIF": b"GIF89a",
    "start of a BMP": b"BM",
    "less than the start of a PNG": b"\x89PNG\r",
    "PNG cut within the name of a chunk": RIGHT["PNG"][:-6],
    "PNG cut within the length of a chunk": RIGHT["PNG"][:-10],
    "truncated JPEG": RIGHT["JPEG"][:-200],
    "truncated PNG": RIGHT["PNG"][:-200],
    "truncated GIF": RIGHT["GIF"][:-200],
    "truncated BMP": RIGHT["BMP"][:-200],
    "PNG under the name of a JPEG": b"\xff\xd8\xff" + RIGHT["PNG"][3:],
    "WebP": encoded(RGB, "WEBP"),
    "TIFF": encoded(RGB, "TIFF"),
    "JPEG of too many pixels": encoded(drawn(1001, 1000)),
    "PNG of too many pixels": encoded(drawn(1001, 1000), "PNG"),
    "GIF of too many pixels": gif(drawn(1001, 1000).quantize(4)),
    "BMP of too many pixels": encoded(drawn(1001, 1000), "BMP"),
    "PNG that claims 2^62 pixels": png_of(2**31 - 1, 2**31 - 1),
    "PNG that claims no pixels": png_of(0, 5),
    "PNG of a negative width": png_of(2**32 - 1, 1),
    "JPEG of too many scans": many_scans(),
    "GIF that does not fill its canvas": gif_of_part(),
    "GIF without a frame": RIGHT["GIF"][:13] + b"\x3b",
    "BMP of 1 bit": encoded(RGB.convert("1"), "BMP"),
    "BMP of a height that cannot be negated": RIGHT["BMP"][:22]
    + struct.pack("<i", -(2**31))
    + RIGHT["BMP"][26:],
}


@pytest.fixture(scope="module")
def decode():
    signature = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda encoded: decode_each(encoded, SIZE, MAX_PIXELS), signature)


@pytest.fixture(scope="module")
def decoded(decode):
    """All images in one batch, by their bytes."""
    all_files = [*RIGHT.values(), *WRONG.values(), *(data for data, *_ in KINDS.values())]
    images, valid = decode(tf.constant(all_files))
    return dict(zip(all_files, zip(images.numpy(), valid.numpy())))


@pytest.mark.parametrize("name", RIGHT)
def test_an_image_is_decoded_as_in_prepare(decoded, name):
    image, valid = decoded[RIGHT[name]]
    prepared = prepare_image(RIGHT[name], ImageSettings(max_side=SIZE, jpeg_quality=100))
    expected = decode_to_square(prepared.jpeg, SIZE).numpy().astype(int)

    assert valid
    # Pillow uses another filter for shrinking, which sharpens edges a little.
    assert np.abs(image - expected).mean() < 5, name
    assert np.corrcoef(image.ravel(), expected.ravel())[0, 1] > 0.99, name


@pytest.mark.parametrize("name", KINDS)
def test_an_image_that_decoders_disagree_on_is_correct_or_refused(decoded, name):
    data, _, may_be_refused = KINDS[name]
    image, valid = decoded[data]
    prepared = prepare_image(data, ImageSettings(jpeg_quality=100)).jpeg

    assert valid != may_be_refused
    expected = decode_to_square(prepared, SIZE).numpy().astype(int)
    assert np.abs(image - expected).mean() < 3 or may_be_refused


@pytest.mark.parametrize("name", WRONG)
def test_bytes_that_are_not_an_image_are_not_valid(decoded, name):
    image, valid = decoded[WRONG[name]]

    assert not valid
    assert (image == 0).all()


FILES = {**RIGHT, **WRONG, **{name: data for name, (data, *_) in KINDS.items()}}


@pytest.mark.parametrize("name", FILES)
def test_a_single_image_is_decoded_as_in_a_batch_to_the_bit(decode, decoded, name):
    (image,), (valid,) = (one.numpy() for one in decode(tf.constant([FILES[name]])))
    expected, is_expected = decoded[FILES[name]]

    assert valid == is_expected
    np.testing.assert_array_equal(image, expected)


def test_small_images_are_decoded_as_in_evaluation_to_the_bit(decode):
    small = [encoded(drawn(w, h, seed)) for seed, (w, h) in enumerate([(256, 200), (31, 97)])]
    images, valid = decode(tf.constant(small))

    assert valid.numpy().all()
    for image, one in zip(images.numpy(), small):
        np.testing.assert_array_equal(image, decode_to_square(one, SIZE).numpy())


def test_rows_of_a_bmp_may_be_top_down(decode):
    images, valid = decode(tf.constant([bytes(TOP_DOWN), encoded(RGB.transpose(1), "BMP")]))

    assert valid.numpy().all()
    np.testing.assert_array_equal(images[0], images[1])


def test_a_transparent_image_is_composed_on_white(decode):
    white = Image.new("RGB", RGB.size, (255, 255, 255))
    white.paste(RGB, mask=TRANSPARENT.getchannel("A"))
    images, _ = decode(tf.constant([RIGHT["PNG with alpha"], encoded(white, "PNG")]))

    assert np.abs(images[0].numpy().astype(int) - images[1].numpy()).max() <= 1


def test_the_order_is_kept_whatever_fails(decode):
    batch = [RIGHT["PNG"], b"", RIGHT["GIF"], b"text"] * 20
    images, valid = decode(tf.constant(batch))

    assert valid.numpy().tolist() == [True, False, True, False] * 20
    for place in range(4, 80):
        np.testing.assert_array_equal(images[place], images[place % 4])


def test_an_empty_batch_gives_one_row_that_is_not_valid(decode):
    images, valid = decode(tf.zeros([0], tf.string))

    assert images.shape == (1, SIZE, SIZE, 3)
    assert valid.numpy().tolist() == [False]


def test_a_file_of_too_many_bytes_is_refused(decode):
    long = RIGHT["JPEG"] + bytes(33 * 2**20)
    _, valid = decode(tf.constant([RIGHT["JPEG"] + bytes(2**20), long]))

    assert valid.numpy().tolist() == [True, False]
    with Image.open(io.BytesIO(long)) as image:
        assert image.size == RGB.size
