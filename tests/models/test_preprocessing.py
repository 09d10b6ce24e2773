import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from apparel_embed.models import preprocessing
from apparel_embed.models.preprocessing import decode_image, decode_to_square


def encoded(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def fit_square(pixels, size):
    return preprocessing.fit_square(tf.convert_to_tensor(pixels), size)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def content_box(square):
    """Returns top, left, height and width of the part that is not white."""
    rows = np.flatnonzero((square != 255).any(axis=(1, 2)))
    columns = np.flatnonzero((square != 255).any(axis=(0, 2)))
    return rows[0], columns[0], len(rows), len(columns)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([8, 31, 64]))
def test_images_keep_their_aspect_ratio_to_a_pixel_and_are_centred_on_white(height, width, size):
    square = fit_square(tf.zeros([height, width, 3], tf.uint8), size).numpy()
    assert square.shape == (size, size, 3)
    assert square.dtype == np.uint8
    assert set(np.unique(square)) <= {0, 255}
    top, left, new_height, new_width = content_box(square)
    scale = size / max(height, width)
    assert max(new_height, new_width) == size
    assert abs(new_height - max(1, height * scale)) <= 0.5 + 1e-3
    assert abs(new_width - max(1, width * scale)) <= 0.5 + 1e-3
    assert top == (size - new_height) // 2
    assert left == (size - new_width) // 2
    assert (square[top : top + new_height, left : left + new_width] == 0).all()


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (40, 20, (0, 4, 16, 8)),
        (20, 40, (4, 0, 8, 16)),
        (40, 40, (0, 0, 16, 16)),
        (1, 1000, (7, 0, 1, 16)),
        (1000, 1, (0, 7, 16, 1)),
        (1, 1, (0, 0, 16, 16)),
        (4, 2, (0, 4, 16, 8)),
    ],
)
def test_an_image_is_placed_in_the_square(height, width, box):
    square = fit_square(tf.zeros([height, width, 3], tf.uint8), 16).numpy()
    assert content_box(square) == box


def test_an_image_of_the_right_size_keeps_its_pixels():
    pixels = noise(24, 24)
    np.testing.assert_array_equal(fit_square(pixels, 24), pixels)
    np.testing.assert_array_equal(fit_square(pixels[np.newaxis], 24)[0], pixels)
    tall = noise(24, 10)
    np.testing.assert_array_equal(fit_square(tall, 24)[:, 7:17], tall)


def test_halving_averages_and_rounds():
    pixels = np.zeros([8, 8, 3], np.uint8)
    pixels[:, 4:] = 201
    shrunk = fit_square(pixels, 2).numpy()
    # The antialiasing triangle crosses the edge: it mixes 0 and 201, mirrored about the middle.
    assert (shrunk[:, 0].astype(int) + shrunk[:, 1] == 201).all()
    assert (shrunk[:, 0] < 50).all()
    np.testing.assert_array_equal(fit_square(np.full([9, 9, 3], 77, np.uint8), 4), 77)


@pytest.mark.parametrize(("height", "width"), [(20, 33), (33, 20), (17, 17), (8, 8)])
def test_a_batch_and_a_single_image_give_the_same_bits(height, width):
    batch = np.stack([noise(height, width, seed) for seed in range(3)])
    together = fit_square(batch, 16).numpy()
    assert together.shape == (3, 16, 16, 3)
    for pixels, square in zip(batch, together):
        np.testing.assert_array_equal(fit_square(pixels, 16), square)


def test_a_graph_with_unknown_size_gives_the_same_bits_and_a_static_shape():
    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def in_graph(image):
        square = fit_square(image, 16)
        assert square.shape == (16, 16, 3)
        return square

    for height, width in ((20, 33), (16, 16), (5, 3)):
        pixels = noise(height, width)
        np.testing.assert_array_equal(in_graph(pixels), fit_square(pixels, 16))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_formats_are_decoded_exactly(kind):
    pixels = noise(9, 14)
    np.testing.assert_array_equal(decode_image(encoded(pixels, kind)), pixels)
    np.testing.assert_array_equal(
        decode_to_square(encoded(pixels, kind), 14), fit_square(pixels, 14)
    )


def test_jpeg_is_decoded_almost_as_pillow_does():
    smooth = np.asarray(Image.fromarray(noise(3, 4)).resize((40, 30), Image.BICUBIC))
    data = encoded(smooth, "JPEG", quality=95)
    reference = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    difference = np.abs(decode_image(data).numpy() - reference)
    assert difference.shape == (30, 40, 3)
    assert difference.mean() < 2


def test_only_the_first_frame_of_a_gif_is_decoded():
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(
        decode_image(file.getvalue()), np.broadcast_to([255, 0, 0], (5, 6, 3))
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_grey_images_become_rgb(kind):
    data = encoded(np.full([8, 8], 90, np.uint8), kind)
    np.testing.assert_allclose(decode_image(data), np.full([8, 8, 3], 90), atol=1)


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_bytes_that_are_not_an_image_are_an_error(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(data)
