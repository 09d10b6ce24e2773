import io

import numpy as np
import pytest
from heic import PLAIN
from PIL import Image, ImageCms
from serving_models import drawn, encoded, exif

from apparel_embed.common.errors import UserError
from apparel_embed.serving import ImageLimits, ImageTooLarge, NotAnImage, to_servable

IMAGE = drawn(300, 200)


def opened(data):
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_that_a_model_accepts_are_sent_unchanged(kind):
    data = encoded(IMAGE, kind)
    assert to_servable(data) is data


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_other_formats_become_jpeg(kind):
    found = opened(to_servable(encoded(IMAGE, kind)))

    assert (found.format, found.size) == ("JPEG", IMAGE.size)
    assert np.abs(np.asarray(found, int) - np.asarray(IMAGE)).mean() < 6


def test_heic_becomes_jpeg():
    found = opened(to_servable(PLAIN))
    assert (found.format, found.size) == ("JPEG", (96, 64))


def test_a_large_file_is_shrunk_and_rotated_upright():
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    long = encoded(Image.fromarray(noise), exif=exif(6))
    found = to_servable(long, ImageLimits(sent_bytes=100_000, sent_side=300))

    assert len(found) < len(long) / 4
    assert opened(found).size == (233, 300)


def test_a_colour_profile_is_applied():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    data = encoded(IMAGE, "PNG", icc_profile=profile.tobytes())
    assert opened(to_servable(data)).format == "JPEG"


@pytest.mark.parametrize(
    ("data", "limits", "expected", "message"),
    [
        (bytes(101), {"max_bytes": 100}, ImageTooLarge, "101 bytes: expected at most 100"),
        (encoded(IMAGE, "WEBP"), {"max_pixels": 59_999}, ImageTooLarge, "300x200 pixels"),
        (b"", {}, NotAnImage, "empty"),
        (b"text", {}, NotAnImage, "not an image"),
        (encoded(IMAGE, "WEBP")[:-100], {}, NotAnImage, "damaged"),
        (PLAIN[:400], {}, NotAnImage, "damaged"),
    ],
)
def test_refused_images_give_the_reason(data, limits, expected, message):
    with pytest.raises(expected, match=message) as error:
        to_servable(data, ImageLimits(**limits))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels", "sent_bytes", "sent_side"])
def test_invalid_limits_are_refused(name):
    with pytest.raises(UserError, match=f"{name} is 0; expected 1 to"):
        ImageLimits(**{name: 0})
