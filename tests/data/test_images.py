import io
import struct

import numpy as np
import pytest
from heic import PLAIN, TURNED
from PIL import Image, ImageCms, features

from apparel_embed.data.decoding import FORMATS
from apparel_embed.data.images import (
    SUFFIXES,
    ImageSettings,
    RejectedImage,
    crop_rectangle,
    image_size,
    prepare_image,
)

SETTINGS = ImageSettings(max_side=64, crop_margin=0.0, jpeg_quality=95)
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def prepared(source, settings=SETTINGS, box=None):
    found = prepare_image(source, settings, box)
    image = Image.open(io.BytesIO(found.jpeg))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    assert image.size == (found.width, found.height)
    return np.asarray(image).astype(int)


def assert_colour(pixel, colour, tolerance=6):
    assert np.abs(np.asarray(pixel) - colour).max() <= tolerance, pixel


def quarters():
    """Returns an image with red, green above blue, white; 48 wide, 32 high."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24], pixels[16:, 24:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def assert_quarters(pixels):
    height, width = pixels.shape[:2]
    top, bottom, left, right = height // 4, 3 * height // 4, width // 4, 3 * width // 4
    for (y, x), colour in {
        (top, left): RED,
        (top, right): GREEN,
        (bottom, left): BLUE,
        (bottom, right): WHITE,
    }.items():
        assert_colour(pixels[y, x], colour)


# How a camera would store the image for each EXIF orientation.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", sorted(STORED))
def test_every_exif_orientation_is_turned_upright(orientation, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    method = STORED[orientation]
    stored = quarters() if method is None else quarters().transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = prepared(encode(stored, kind, exif=exif.tobytes()))
    assert pixels.shape == (32, 48, 3)
    assert_quarters(pixels)


@pytest.mark.parametrize("orientation", [1, 6, 8, 3])
def test_boxes_are_in_upright_pixels_even_if_a_jpeg_is_decoded_at_reduced_size(orientation):
    large = quarters().resize((1200, 800), Image.Resampling.NEAREST)
    method = STORED[orientation]
    stored = large if method is None else large.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, "JPEG", exif=exif.tobytes())
    settings = ImageSettings(max_side=32, crop_margin=0.0)
    green = prepared(data, settings, (640, 20, 1180, 380))
    assert green.shape == (21, 32, 3)
    assert_colour(green[10, 16], GREEN)
    assert_colour(green[-1, 0], GREEN, 12)
    assert_quarters(prepared(data, settings))


@pytest.mark.parametrize(
    ("data", "size", "blue"), [(PLAIN, (96, 64), (16, 24)), (TURNED, (64, 96), (24, 48))]
)
def test_a_phones_heic_is_decoded_and_turned_upright(data, size, blue):
    image = prepare_image(data, ImageSettings(max_side=96))
    assert (image.width, image.height) == image_size(data) == size
    pixels = np.asarray(Image.open(io.BytesIO(image.jpeg)))
    assert_colour(pixels[blue], (30, 60, 200))
    assert_colour(pixels[-16, 16], (200, 40, 40))


@pytest.mark.parametrize("length", [12, 100, 300, 400, 487])
def test_a_truncated_heic_is_rejected_with_a_reason_of_one_line(length):
    with pytest.raises(RejectedImage) as error:
        prepare_image(PLAIN[:length], ImageSettings())
    assert "\n" not in str(error.value)


def test_suffixes_are_those_of_pillow_and_its_heif_plugin():
    image_size(PLAIN)  # Pillow registers HEIF only once an image has been opened.
    kinds = Image.registered_extensions()
    assert {kinds[suffix] for suffix in SUFFIXES} == set(FORMATS)
    assert {suffix for suffix, kind in kinds.items() if kind in FORMATS} - {*SUFFIXES} <= {".pfm"}


def test_broken_exif_is_ignored():
    data = encode(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert_quarters(prepared(data))


def test_an_orientation_out_of_range_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert_quarters(prepared(encode(quarters(), "JPEG", exif=exif.tobytes())))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
        ("TGA", {}),
        ("JPEG2000", {}),
        pytest.param(
            "AVIF",
            {"quality": 95, "subsampling": "4:4:4"},
            marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF"),
        ),
    ],
)
def test_formats_keep_size_and_colours(kind, options):
    pixels = prepared(encode(quarters(), kind, **options))
    assert pixels.shape == (32, 48, 3)
    assert_quarters(pixels)


def test_greyscale_one_bit_and_palette_images_keep_their_colours():
    grey = prepared(encode(Image.new("L", (8, 8), 100), "PNG"))
    assert_colour(grey[4, 4], (100, 100, 100))
    bit = prepared(encode(Image.new("1", (8, 8), 1), "PNG"))
    assert_colour(bit[4, 4], WHITE)
    assert_quarters(prepared(encode(quarters().quantize(8), "PNG")))


def test_a_cmyk_jpeg_keeps_its_colours():
    assert_quarters(prepared(encode(quarters().convert("CMYK"), "JPEG", quality=98)))


def test_16_bit_grey_is_scaled_not_clipped():
    values = np.zeros((8, 24), np.uint16)
    values[:, 8:16], values[:, 16:] = 32896, 65535
    for kind in ("PNG", "TIFF", "PPM"):
        pixels = prepared(encode(Image.fromarray(values), kind))
        assert_colour(pixels[4, 4], (0, 0, 0))
        assert_colour(pixels[4, 12], (128, 128, 128))
        assert_colour(pixels[4, 20], WHITE)


def test_float_pixels_are_rejected():
    with pytest.raises(RejectedImage, match="floating-point"):
        prepare_image(encode(Image.new("F", (4, 4), 0.5), "TIFF"), SETTINGS)


def test_transparent_pixels_become_white_whatever_their_colour():
    rgba = Image.new("RGBA", (16, 8), (*BLUE, 255))
    rgba.paste((0, 0, 0, 0), (8, 0, 16, 8))
    for kind in ("PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        pixels = prepared(encode(rgba, kind, **options))
        assert_colour(pixels[4, 2], BLUE)
        assert_colour(pixels[4, 13], WHITE)


def test_half_transparent_black_becomes_mid_grey():
    pixels = prepared(encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)), "PNG"))
    assert_colour(pixels[4, 4], (127, 127, 127))


def test_a_transparent_border_leaves_no_dark_fringe_after_downscaling():
    rgba = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    rgba.paste((255, 255, 255, 255), (63, 63, 191, 191))
    assert prepared(encode(rgba, "PNG")).min() >= 250


def test_transparent_grey_and_palette_pixels_become_white():
    grey_alpha = Image.new("LA", (16, 8), (50, 255))
    grey_alpha.paste((0, 0), (8, 0, 16, 8))
    palette = Image.new("P", (16, 8), 0)
    palette.putpalette([50, 50, 50, 0, 0, 0])
    palette.paste(1, (8, 0, 16, 8))
    for data in (
        encode(grey_alpha, "PNG"),
        encode(palette, "PNG", transparency=b"\xff\x00"),
        encode(palette, "GIF", transparency=1),
    ):
        pixels = prepared(data)
        assert_colour(pixels[4, 2], (50, 50, 50))
        assert_colour(pixels[4, 13], WHITE)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_used(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert_colour(prepared(data)[8, 8], RED, 8)


def wide_gamut_profile():
    """Returns an sRGB profile with swapped red and green primaries."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    entries = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_icc_profile_is_converted_to_srgb(kind):
    image = Image.new("RGB", (8, 8), RED)
    pixels = prepared(encode(image, kind, icc_profile=wide_gamut_profile()))
    assert_colour(pixels[4, 4], GREEN)


def test_an_icc_profile_is_used_for_images_with_alpha_too():
    image = Image.new("RGBA", (16, 8), (*RED, 255))
    image.paste((0, 0, 0, 0), (8, 0, 16, 8))
    pixels = prepared(encode(image, "PNG", icc_profile=wide_gamut_profile()))
    assert_colour(pixels[4, 2], GREEN)
    assert_colour(pixels[4, 13], WHITE)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_broken_or_unsuitable_icc_profile_is_ignored(mode):
    plain = encode(quarters().convert(mode), "JPEG", quality=95)
    expected = prepared(plain)
    for profile in (b"garbage", b"\0" * 200):
        data = encode(quarters().convert(mode), "JPEG", quality=95, icc_profile=profile)
        np.testing.assert_array_equal(prepared(data), expected)
    if mode != "RGB":
        data = encode(
            quarters().convert(mode), "JPEG", quality=95, icc_profile=wide_gamut_profile()
        )
        np.testing.assert_array_equal(prepared(data), expected)


def test_the_result_has_no_metadata():
    exif = Image.Exif()
    exif[0x010E] = "secret"
    data = encode(
        quarters(),
        "JPEG",
        exif=exif.tobytes(),
        comment=b"secret",
        icc_profile=wide_gamut_profile(),
        dpi=(300, 300),
    )
    image = prepare_image(data, SETTINGS)
    assert b"secret" not in image.jpeg
    info = Image.open(io.BytesIO(image.jpeg)).info
    assert set(info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (1, 1)),
        ((64, 64), (64, 64)),
        ((20, 10), (20, 10)),
        ((128, 96), (64, 48)),
        ((3000, 1), (64, 1)),
        ((1, 3000), (1, 64)),
        ((4000, 3000), (64, 48)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_longest_side_is_limited_and_images_are_never_enlarged(size, expected, kind):
    pixels = prepared(encode(Image.new("RGB", size, (10, 200, 90)), kind))
    assert pixels.shape == (expected[1], expected[0], 3)
    assert_colour(pixels[0, 0], (10, 200, 90))


def test_downscaling_averages_instead_of_skipping_pixels():
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    for kind in ("PNG", "JPEG"):
        pixels = prepared(encode(Image.fromarray(board), kind))
        assert np.abs(pixels[4:-4, 4:-4] - 127).max() < 12


def test_a_crop_is_the_box_with_its_margin_clipped_to_the_image():
    assert crop_rectangle((100, 80), (10, 20, 30, 60), 0.1) == (8, 16, 32, 64)
    assert crop_rectangle((100, 80), (-50, -50, 30, 1e6), 0.0) == (0, 0, 30, 80)
    assert crop_rectangle((100, 80), (99.5, 79.5, 99.6, 79.6), 0.0) == (99, 79, 100, 80)
    assert crop_rectangle((100, 80), None, 0.5) == (0, 0, 100, 80)


@pytest.mark.parametrize(
    "box", [(48, 0, 60, 10), (0, 32, 10, 40), (-9, 0, 0, 10), (0, -9, 10, 0), (99, 99, 100, 100)]
)
def test_a_box_completely_outside_is_rejected(box):
    for kind in ("PNG", "JPEG"):
        with pytest.raises(RejectedImage, match=r"box .* outside the image of 48x32 pixels"):
            prepare_image(encode(quarters(), kind), SETTINGS, box)


def test_a_crop_is_exact_without_downscaling():
    pixels = prepared(encode(quarters(), "PNG"), box=(24, 16, 48, 32))
    assert pixels.shape == (16, 24, 3)
    assert pixels.min() >= 250


def test_the_suffix_does_not_matter_and_a_path_gives_the_same_as_bytes(tmp_path):
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encode(quarters(), "PNG"))
    assert prepare_image(path, SETTINGS) == prepare_image(path.read_bytes(), SETTINGS)


@pytest.mark.parametrize("orientation", [1, 3, 5, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_size_equals_that_of_the_prepared_image(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.new("RGB", (30, 20)), kind, exif=exif)
    (tmp_path / "image").write_bytes(data)
    height, width = prepared(data).shape[:2]
    assert (width, height) == ((30, 20) if orientation < 5 else (20, 30))
    assert image_size(data) == image_size(tmp_path / "image") == (width, height)
