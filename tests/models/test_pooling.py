"""Pooling of feature maps and of an image's colours into one feature vector."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.models.backbones import BACKBONES
from apparel_embed.models.embedding import (
    PYRAMID,
    ModelConfig,
    build_embedding_model,
    frozen_feature_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.models.pooling import (
    ColourHistogram,
    GeMPooling,
    pyramid_features,
)

few = settings(derandomize=True, deadline=None, max_examples=25)
maps = st.integers(0, 2**31 - 1).map(
    lambda seed: np.random.default_rng(seed).uniform(0.01, 5, [2, 3, 4, 5]).astype(np.float32)
)


@few
@given(maps)
def test_gem_with_exponent_one_is_the_average(features):
    pooled = GeMPooling(initial_exponent=1.0)(features)
    np.testing.assert_allclose(pooled, features.mean(axis=(1, 2)), rtol=1e-5)


@few
@given(maps, st.floats(15, 40))
def test_gem_with_large_exponent_is_near_the_maximum(features, exponent):
    pooled = GeMPooling(initial_exponent=exponent)(features).numpy()
    maximum = features.max(axis=(1, 2))
    # (1/n sum x^p)^(1/p) lies between max * n^(-1/p) and max.
    assert (pooled <= maximum * (1 + 1e-4)).all()
    assert (pooled >= maximum * 12 ** (-1 / exponent) * (1 - 1e-4)).all()


@few
@given(maps, st.floats(1, 8), st.floats(1.05, 3))
def test_gem_grows_with_the_exponent(features, exponent, factor):
    low = GeMPooling(initial_exponent=exponent)(features).numpy()
    high = GeMPooling(initial_exponent=exponent * factor)(features).numpy()
    assert (high >= low * (1 - 1e-4)).all()


def test_gem_has_finite_gradients_at_zero_features_and_can_be_restored():
    layer = GeMPooling(initial_exponent=2.0)
    features = tf.constant([[[[0.0, 3.0]], [[0.0, 4.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = layer(features)
    gradients = tape.gradient(pooled, [features, layer.exponent])
    np.testing.assert_allclose(pooled, [[1e-6, np.sqrt(12.5)]], rtol=1e-4)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert GeMPooling.from_config(layer.get_config()).initial_exponent == 2.0


def histogram(images):
    """Returns shares of colours as [n, red, green, blue]."""
    roots = ColourHistogram()(tf.constant(images, tf.float32)).numpy()
    return np.square(roots).reshape([-1, 4, 4, 4])


def plain(*colour, side=6):
    return np.broadcast_to(np.array(colour, np.float32), [1, side, side, 3])


@pytest.mark.parametrize(
    ("colour", "level"),
    [
        ((0, 0, 0), (0, 0, 0)),
        # Colours beyond the centres of the outer levels are clipped.
        ((32, 10, 255), (0, 0, 3)),
        ((255, 255, 255), (3, 3, 3)),
        ((96, 160, 224), (1, 2, 3)),
    ],
)
def test_the_histogram_of_a_plain_image_has_a_single_share(colour, level):
    (shares,) = histogram(plain(*colour))
    expected = np.zeros([4, 4, 4])
    expected[level] = 1
    np.testing.assert_allclose(shares, expected, atol=1e-4)


def test_a_colour_halfway_between_two_levels_counts_half_towards_both():
    (shares,) = histogram(plain(128, 32, 224))
    assert shares[1, 0, 3] == pytest.approx(0.5, abs=1e-4)
    assert shares[2, 0, 3] == pytest.approx(0.5, abs=1e-4)
    assert shares.sum() == pytest.approx(1, abs=1e-3)
    # A quarter of the way between two levels, in two channels.
    (shares,) = histogram(plain(48, 224, 112))
    for level, share in (((0, 3, 1), 9), ((1, 3, 1), 3), ((0, 3, 2), 3), ((1, 3, 2), 1)):
        assert shares[level] == pytest.approx(share / 16, abs=1e-4)


def test_shares_are_proportional_to_the_size_of_parts_of_an_image():
    image = np.array(plain(255, 255, 255, side=8))
    # 4 of the 16 squares of 2 x 2 pixels.
    image[:, :4, :4] = (255, 0, 0)
    (shares,) = histogram(image)
    assert shares[3, 0, 0] == pytest.approx(1 / 4, abs=1e-4)
    assert shares[3, 3, 3] == pytest.approx(3 / 4, abs=1e-4)


@few
@given(st.integers(0, 2**31 - 1), st.integers(2, 9), st.integers(2, 9))
def test_shares_of_a_histogram_sum_to_one_and_do_not_depend_on_position(seed, height, width):
    random = np.random.default_rng(seed)
    images = random.uniform(0, 255, [3, 2 * height, 2 * width, 3])
    shares = histogram(images)
    assert shares.min() > 0
    # 1e-5 is added to each of the 64 shares to keep roots from 0.
    np.testing.assert_allclose(shares.sum((1, 2, 3)), 1 + 64e-5, atol=1e-5)
    np.testing.assert_allclose(histogram(images[:, ::-1, ::-1]), shares, atol=1e-6)


def test_a_histogram_has_a_finite_gradient_between_levels():
    layer = ColourHistogram()
    images = tf.constant(np.concatenate([plain(0, 0, 0), plain(128, 50, 224), plain(96, 96, 96)]))
    with tf.GradientTape() as tape:
        tape.watch(images)
        roots = layer(images)
        value = tf.reduce_sum(roots * tf.range(64, dtype=tf.float32))
    gradient = tape.gradient(value, images).numpy()
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[1]).max() > 0


def test_a_histogram_can_be_saved_and_takes_images_of_any_size(tmp_path):
    inputs = tf.keras.Input([None, None, 3])
    model = tf.keras.Model(inputs, ColourHistogram(name="colours")(inputs))
    model.save(tmp_path / "model.keras")
    again = tf.keras.models.load_model(tmp_path / "model.keras")
    images = np.random.default_rng(0).uniform(0, 255, [2, 11, 8, 3]).astype(np.float32)
    np.testing.assert_array_equal(again(images), model(images))


PYRAMIDS = {
    # Channels of the levels.
    "small_cnn": [32, 64, 128, 192],
    "efficientnet_lite_b0": [16, 24, 40, 112, 1280],
    "resnet18": [64, 128, 256, 512],
}


def pyramid(name):
    return ModelConfig(backbone=name, image_size=64, embedding_dim=8, pooling=PYRAMID)


def images_of(count=4, size=64):
    return tf.random.stateless_uniform([count, size, size, 3], [1, 2], 0, 255)


@pytest.mark.slow
@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_pyramid_pools_all_levels_and_colours_and_can_be_saved(name, tmp_path):
    config = pyramid(name)
    model = build_embedding_model(config)
    levels = PYRAMIDS[name]
    backbone = model.get_layer("backbone")
    assert [output.shape[-1] for output in backbone.outputs] == levels
    sides = [output.shape[1] for output in backbone.outputs]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == len(sides)
    assert model.get_layer("pooling").output.shape == (None, sum(levels) + 64)

    images = images_of()
    for _ in range(2):
        model(images, training=True)
    embeddings = model(images, training=False)
    assert embeddings.shape == (4, 8)
    assert embeddings.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    features = frozen_feature_model(model)(images)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)

    save_embedding_model(tmp_path, model, config)
    again, read = load_embedding_model(tmp_path)
    assert read == config
    for ours, expected in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(again(images, training=False), embeddings)


def test_every_level_of_a_pyramid_has_the_same_weight_whatever_its_length_and_range():
    images = tf.keras.Input([8, 8, 3])
    levels = [tf.keras.Input([side, side, channels]) for side, channels in ((4, 3), (2, 48))]
    model = tf.keras.Model([images, *levels], pyramid_features(images, levels))
    random = np.random.default_rng(0)
    fine = random.normal(100, 50, [64, 4, 4, 3])
    coarse = random.normal(-1, 2, [64, 2, 2, 48])
    parts = np.split(
        model([random.uniform(0, 255, [64, 8, 8, 3]), fine, coarse], training=True), [3, 51], axis=1
    )

    for part, features in zip(parts, (fine, coarse)):
        means = features.mean(axis=(1, 2))
        standardised = (means - means.mean(axis=0)) / means.std(axis=0)
        np.testing.assert_allclose(part, standardised * 4 / len(means[0]) ** 0.5, atol=0.01)
        assert np.square(part).sum(axis=1).mean() == pytest.approx(16, rel=0.01)
    # Rare colours weigh less, and none weighs more.
    assert parts[2].shape == (64, 64)
    np.testing.assert_allclose(parts[2].mean(axis=0), 0, atol=1e-4)
    assert 8 < np.square(parts[2]).sum(axis=1).mean() < 16


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_names_the_last_layers_of_its_levels(name):
    backbone = BACKBONES[name].build((64, 64, 3))
    outputs = [backbone.get_layer(level).output for level in BACKBONES[name].levels(backbone)]
    sides = [output.shape[1] for output in outputs]
    assert len(sides) >= 4
    assert sides == sorted(sides, reverse=True)
    # The coarsest level is the one that average pooling uses.
    assert sides[-1] == backbone.output_shape[1]
