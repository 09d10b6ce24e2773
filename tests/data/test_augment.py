import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.data.augment import AugmentConfig, Augmenter

NOTHING = AugmentConfig(flip=False, zoom=0.0, translation=0.0)
EVERYTHING = AugmentConfig(
    flip=True,
    rotation=15.0,
    zoom=0.2,
    translation=0.1,
    brightness=0.2,
    contrast=0.3,
    saturation=0.4,
    hue=0.1,
    erase=0.3,
)
EACH = {
    "flip": True,
    "rotation": 20.0,
    "zoom": 0.3,
    "translation": 0.2,
    "brightness": 0.3,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.3,
    "erase": 0.5,
}
SEED = tf.constant([3, 4])


def noise(count=6, side=16):
    """Returns identical smooth images: any difference after augmentation is random."""
    y, x = np.mgrid[0:side, 0:side] / (side - 1)
    image = np.stack([40 + 180 * x, 60 + 120 * y, 200 - 150 * x * y], axis=-1)
    return tf.constant(np.repeat(image[np.newaxis], count, axis=0), tf.float32)


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_images():
    augment = Augmenter(EVERYTHING)
    first = augment(noise(), SEED)
    np.testing.assert_array_equal(augment(noise(), SEED), first)
    for other in ([3, 5], [4, 4]):
        assert np.abs(augment(noise(), tf.constant(other)) - first).max() > 1


def test_two_augmenters_agree_whatever_the_global_seed_and_earlier_calls():
    first = Augmenter(EVERYTHING)(noise(), SEED)
    tf.random.set_seed(987)
    tf.random.uniform([3])
    second = Augmenter(EVERYTHING)
    second(noise(), tf.constant([0, 0]))
    np.testing.assert_array_equal(second(noise(), SEED), first)


@pytest.mark.slow
def test_another_process_agrees():
    script = (
        "import sys, numpy as np, tensorflow as tf\n"
        "from apparel_embed.data.augment import AugmentConfig, Augmenter\n"
        "tf.random.set_seed(5)\n"
        "images = tf.reshape(tf.range(2 * 8 * 8 * 3, dtype=tf.float32) % 256, [2, 8, 8, 3])\n"
        "config = AugmentConfig(rotation=10.0, brightness=0.2, contrast=0.2, erase=0.4)\n"
        "out = Augmenter(config)(images, tf.constant([1, 2])).numpy()\n"
        "sys.stdout.write('result:' + out.tobytes().hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    images = tf.reshape(tf.range(2 * 8 * 8 * 3, dtype=tf.float32) % 256, [2, 8, 8, 3])
    config = AugmentConfig(rotation=10.0, brightness=0.2, contrast=0.2, erase=0.4)
    here = Augmenter(config)(images, tf.constant([1, 2])).numpy()
    assert done.stdout.split("result:")[1] == here.tobytes().hex()


def test_a_tf_function_gives_the_same_images_and_follows_the_seed():
    augment = Augmenter(AugmentConfig(brightness=0.2))
    graph = tf.function(lambda images, seed: augment(images, seed))
    for seed in (SEED, tf.constant([8, 9])):
        np.testing.assert_allclose(graph(noise(), seed), augment(noise(), seed), atol=1e-2)
    assert np.abs(graph(noise(), SEED) - graph(noise(), tf.constant([8, 9]))).max() > 1


@pytest.mark.slow
def test_a_tf_data_pipeline_gives_the_same_images():
    augment = Augmenter(EVERYTHING)
    seeds = tf.constant([[1, 0], [1, 1], [1, 0]])
    eager = [augment(noise(4), seed).numpy() for seed in seeds]
    mapped = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: augment(noise(4), seed), num_parallel_calls=2
    )
    for expected, streamed in zip(eager, mapped):
        np.testing.assert_allclose(streamed, expected, atol=1e-2)
    np.testing.assert_array_equal(eager[0], eager[2])
    assert np.abs(eager[0] - eager[1]).max() > 1
    streamed = list(mapped.as_numpy_iterator())
    np.testing.assert_array_equal(streamed[0], streamed[2])


def test_values_stay_in_range_and_the_shape_is_kept():
    random = tf.random.stateless_uniform([8, 20, 20, 3], [1, 1], 0, 255)
    config = dataclasses.replace(EVERYTHING, brightness=0.9, contrast=0.9, saturation=1.0, hue=1.0)
    for seed in range(4):
        out = Augmenter(config)(random, tf.constant([seed, 0])).numpy()
        assert out.shape == random.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert out.min() >= 0
        assert out.max() <= 255


def test_images_are_unchanged_if_everything_is_off():
    images = noise()
    np.testing.assert_array_equal(Augmenter(NOTHING)(images, SEED), images)


@pytest.mark.parametrize("name", EACH)
def test_each_augmentation_alone_changes_each_image_in_its_own_way(name):
    assert set(EACH) == {field.name for field in dataclasses.fields(AugmentConfig)}
    images = noise(16)
    out = Augmenter(dataclasses.replace(NOTHING, **{name: EACH[name]}))(images, SEED).numpy()
    changed = np.abs(out - images).max(axis=(1, 2, 3)) > 1
    assert changed.sum() >= 4
    distinct = len(np.unique(out.round(2).reshape(16, -1), axis=0))
    assert distinct == 2 if name == "flip" else distinct >= 8


@pytest.mark.parametrize("name", [name for name in EACH if name != "flip"])
def test_a_tiny_strength_changes_little(name):
    weak = {"rotation": 0.1, "erase": 0.01}.get(name, 0.002)
    images = noise(8)
    out = Augmenter(dataclasses.replace(NOTHING, **{name: weak}))(images, SEED)
    assert np.abs(out - images).mean() < 2


def test_about_half_of_the_images_are_mirrored_and_the_others_unchanged():
    images = noise(400, side=4)
    out = Augmenter(AugmentConfig(zoom=0.0, translation=0.0))(images, SEED).numpy()
    same = (out == images.numpy()).all(axis=(1, 2, 3))
    mirrored = (out == images.numpy()[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert 150 <= mirrored.sum() <= 250


def test_brightness_shifts_all_pixels_of_an_image_equally_up_to_the_limit():
    images = tf.fill([200, 4, 4, 3], 128.0)
    out = Augmenter(dataclasses.replace(NOTHING, brightness=0.2))(images, SEED).numpy()
    shift = out - 128
    assert (np.ptp(shift, axis=(1, 2, 3)) < 1e-3).all()
    assert -51.1 <= shift.min() < -40
    assert 40 < shift.max() <= 51.1


@pytest.mark.parametrize("switched", [{"flip": True}, {"zoom": 0.3}, {"translation": 0.2}, "all"])
def test_boxes_move_with_their_contents(switched):
    all_of_them = {"flip": True, "zoom": 0.3, "translation": 0.2}
    config = dataclasses.replace(NOTHING, **(all_of_them if switched == "all" else switched))
    augmenter, side, count = Augmenter(config), 64, 16
    images = np.zeros([count, side, side, 3], np.float32)
    images[:, 20:36, 30:40] = 255.0
    boxes = tf.constant([[[30 / side, 20 / side, 40 / side, 36 / side]]] * count)
    draws = Augmenter.draw(SEED, count)
    moved = augmenter.move_boxes(boxes, draws)[:, 0].numpy() * side
    changed = augmenter.apply(tf.constant(images), draws).numpy()[..., 0] > 127
    for box, image in zip(moved, changed):
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(box, found, atol=1.01)
    assert np.ptp(moved, axis=0).max() > 2


def test_boxes_cannot_be_rotated():
    augmenter = Augmenter(dataclasses.replace(NOTHING, rotation=5.0))
    with pytest.raises(ValueError, match="rotation 5: expected 0"):
        augmenter.move_boxes(tf.zeros([1, 1, 4]), Augmenter.draw(SEED, 1))
