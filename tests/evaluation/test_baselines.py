from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.baselines import colour_histogram, colour_histograms


def plain(colour, height=8, width=6):
    return np.full((height, width, 3), colour, np.uint8)


def encode(pixels, form="JPEG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, quality=95)
    return file.getvalue()


@pytest.mark.parametrize(
    ("colour", "bin_number"),
    [
        ((0, 0, 0), 0),
        ((255, 255, 255), 63),
        ((255, 0, 0), 48),
        ((0, 255, 0), 12),
        ((0, 0, 255), 3),
        ((63, 64, 127), 0 * 16 + 1 * 4 + 1),
        ((128, 191, 192), 2 * 16 + 2 * 4 + 3),
    ],
)
def test_each_colour_falls_into_its_bin(colour, bin_number):
    histogram = colour_histogram(plain(colour))
    assert histogram.shape == (64,) and histogram.dtype == np.float32
    assert histogram[bin_number] == 1 and histogram.sum() == 1


def test_an_image_of_two_colours_has_length_one():
    image = plain((255, 0, 0), height=4)
    image[:1] = (0, 0, 255)
    histogram = colour_histogram(image)
    assert histogram[48] == pytest.approx(3 / np.sqrt(10))
    assert histogram[3] == pytest.approx(1 / np.sqrt(10))
    assert np.linalg.norm(histogram) == pytest.approx(1)


def test_positions_of_pixels_do_not_matter():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(colour_histogram(pixels), colour_histogram(pixels[::-1, ::-1]))


def test_encoded_images_are_decoded_in_order():
    images = [encode(plain((255, 0, 0))), encode(plain((10, 10, 10))), encode(plain(99), "PNG")]
    histograms = colour_histograms(iter(images))
    assert histograms.shape == (3, 64) and histograms.dtype == np.float32
    assert histograms.argmax(axis=1).tolist() == [48, 0, 21]


def test_grey_images_count_as_rgb():
    histogram = colour_histograms([encode(np.full((5, 5), 200, np.uint8))])
    assert histogram[0].argmax() == 63 and histogram[0].max() == 1


def test_no_images_give_no_rows():
    assert colour_histograms([]).shape == (0, 64)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"no", lambda data: data[:200]])
def test_the_error_names_the_number_of_a_broken_image(damage):
    good = encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    with pytest.raises(UserError, match="image 1 cannot be decoded"):
        colour_histograms([good, damage(good)])


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8),
     np.zeros((0, 4, 3), np.uint8)],
)  # fmt: skip
def test_an_array_that_is_not_an_rgb_image_is_refused(wrong):
    with pytest.raises(UserError, match="expected uint8"):
        colour_histogram(wrong)
