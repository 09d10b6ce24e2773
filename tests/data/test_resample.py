import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.data.augment import resample

IMAGES = tf.random.stateless_uniform([5, 12, 9, 3], [1, 2], 0, 255)
ONES = tf.ones([5])
NONE = tf.zeros([5], tf.bool)
STILL = tf.zeros([5, 2])


def projected(images, zooms, shifts):
    """Returns the same with the general projective transform that keras-cv's layers use."""
    height, width = images.shape[1:3]
    rows = []
    for zoom, (down, right) in zip(zooms.numpy(), shifts.numpy()):
        x = (1 - zoom) * (width - 1) / 2 - zoom * right * width
        y = (1 - zoom) * (height - 1) / 2 - zoom * down * height
        rows.append([zoom, 0, x, 0, zoom, y, 0, 0])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.constant(rows, tf.float32),
        output_shape=[height, width],
        interpolation="BILINEAR",
        fill_mode="NEAREST",
        fill_value=0.0,
    )


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_unchanged_images_keep_their_values_exactly(dtype):
    images = tf.cast(IMAGES, dtype)
    found = resample(images, NONE, ONES, STILL)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, tf.cast(images, tf.float32))


def test_mirroring_is_exact_and_only_for_selected_images():
    mirrored = tf.constant([True, False, True, False, False])
    found = resample(IMAGES, mirrored, ONES, STILL).numpy()
    for result, image, flip in zip(found, IMAGES.numpy(), mirrored):
        np.testing.assert_array_equal(result, image[:, ::-1] if flip else image)


def test_zoom_and_shift_equal_a_projective_transform():
    zooms = tf.constant([1.0, 0.8, 1.3, 0.95, 1.05])
    shifts = tf.constant([[0.25, 0.0], [0.0, -0.3], [0.1, 0.1], [-0.2, 0.2], [0.0, 0.0]])
    found = resample(IMAGES, NONE, zooms, shifts)
    np.testing.assert_allclose(found, projected(IMAGES, zooms, shifts), atol=0.05)


def test_a_shift_by_whole_pixels_is_exact_and_repeats_the_edge():
    shifts = tf.tile(tf.constant([[3 / 12, -2 / 9]]), [5, 1])
    found = resample(IMAGES, NONE, ONES, shifts).numpy()
    rows = np.clip(np.arange(12) - 3, 0, 11)
    columns = np.clip(np.arange(9) + 2, 0, 8)
    expected = IMAGES.numpy()[:, rows][:, :, columns]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_an_image_shifted_out_of_view_shows_only_its_edge():
    shifts = tf.tile(tf.constant([[2.0, 0.0]]), [5, 1])
    found = resample(IMAGES, NONE, ONES, shifts).numpy()
    np.testing.assert_allclose(found, np.repeat(IMAGES[:, :1], 12, axis=1), atol=1e-3)


def test_zooming_in_enlarges_the_centre():
    image = np.zeros([1, 11, 11, 3], np.float32)
    image[:, 5, 5] = 255
    found = resample(tf.constant(image), NONE[:1], 0.5 * ONES[:1], STILL[:1]).numpy()
    assert found[0, 5, 5, 0] == 255
    assert (found > 100).sum() > (image > 100).sum()
