import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.losses.regression import (
    REGRESSION_FUNCTIONS,
    SMOOTH_L1_DELTA,
    cosine_distance,
    make_regression_loss,
    mean_squared_error,
    smooth_l1,
    standardising_scale,
)

each_loss = pytest.mark.parametrize(
    "loss", REGRESSION_FUNCTIONS.values(), ids=list(REGRESSION_FUNCTIONS)
)


def unit(seed, count, dim):
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_value_matches_a_hand_computed_example():
    targets = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    embeddings = tf.constant([[0.0, 1.0], [0.0, 0.5]])
    assert float(mean_squared_error(targets, embeddings)) == pytest.approx((2 + 0.25) / 4)
    # A right angle and the same direction: the cosine ignores lengths.
    assert float(cosine_distance(targets, embeddings)) == pytest.approx((1 + 0) / 2)
    far, delta = 0.1 * (1 - 0.05), SMOOTH_L1_DELTA
    assert delta == 0.1
    assert float(smooth_l1(targets, embeddings)) == pytest.approx((2 * far + 0.1 * 0.45) / 4)
    assert float(smooth_l1([[0.0]], [[0.06]])) == pytest.approx(0.06**2 / 2)


@each_loss
def test_the_loss_is_zero_at_the_target(loss):
    targets = unit(0, 5, 16)
    assert float(loss(targets, targets)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_squared_error_of_unit_vectors_depends_only_on_their_angle(degrees):
    angle = np.deg2rad(degrees)
    targets = tf.constant([[1.0, 0.0, 0.0, 0.0]])
    embeddings = tf.constant([[np.cos(angle), np.sin(angle), 0.0, 0.0]], tf.float32)
    expected = (2 - 2 * np.cos(angle)) / 4
    assert float(mean_squared_error(targets, embeddings)) == pytest.approx(expected, abs=1e-6)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(2, 64))
def test_cosine_is_half_the_squared_error_of_unit_vectors_times_the_dimension(seed, count, dim):
    targets, embeddings = unit(seed, count, dim), unit(seed + 1, count, dim)
    expected = float(mean_squared_error(targets, embeddings)) * dim / 2
    assert float(cosine_distance(targets, embeddings)) == pytest.approx(expected, abs=1e-5)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(2, 64))
def test_smooth_l1_is_at_most_half_the_squared_error_with_gradients_up_to_delta(seed, count, dim):
    targets, embeddings = unit(seed, count, dim), tf.Variable(unit(seed + 1, count, dim))
    with tf.GradientTape() as tape:
        value = smooth_l1(targets, embeddings)
    assert float(value) <= float(mean_squared_error(targets, embeddings)) / 2 + 1e-7
    pull = np.abs(tape.gradient(value, embeddings)) * count * dim
    assert pull.max() <= SMOOTH_L1_DELTA * 1.001


def test_gradient_points_from_target_to_embedding():
    targets, embeddings = tf.constant([[1.0, 2.0]]), tf.Variable([[3.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = mean_squared_error(targets, embeddings)
    np.testing.assert_allclose(tape.gradient(loss, embeddings), [[2.0, -2.0]])


@each_loss
@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_losses_are_computed_in_float32_for_any_input_dtype(loss, dtype):
    # The square of 1e-4 underflows to 0 in float16.
    targets, embeddings = tf.constant([[1.0, 1e-4]], dtype), tf.constant([[1.0, 0.0]], dtype)
    value = loss(targets, embeddings)
    assert value.dtype == tf.float32
    wanted = loss(tf.cast(targets, tf.float32), tf.cast(embeddings, tf.float32))
    assert float(value) == float(wanted)
    mixed = loss(tf.cast(targets, tf.float32), embeddings)
    assert float(mixed) == float(wanted)


@each_loss
def test_zero_vectors_have_a_finite_loss_and_gradient_and_nan_stays_nan(loss):
    embeddings = tf.Variable(np.zeros([2, 4], np.float32))
    with tf.GradientTape() as tape:
        value = loss(np.zeros([2, 4], np.float32), embeddings)
    assert np.isfinite(float(value))
    assert np.isfinite(tape.gradient(value, embeddings)).all()
    assert np.isnan(float(loss(np.full([1, 2], np.nan, np.float32), [[1.0, 0.0]])))


def test_a_zero_vector_has_cosine_0_to_every_vector():
    assert float(cosine_distance([[0.0, 0.0]], [[1.0, 0.0]])) == 1.0


def test_a_name_gives_its_loss():
    targets, embeddings = unit(0, 3, 4), unit(1, 3, 4)
    for name, function in REGRESSION_FUNCTIONS.items():
        loss = make_regression_loss(name)
        assert loss.name == name
        assert float(loss(targets, embeddings)) == float(function(targets, embeddings))


def test_an_unknown_name_gives_an_error_with_the_valid_ones():
    with pytest.raises(
        UserError, match="--student_loss=l1: expected one of mse, cosine, smooth_l1"
    ):
        make_regression_loss("l1")


def test_standardised_dimensions_count_equally_with_a_limited_scale():
    # Deviations are 3, 1 and 0; the deviation over all dimensions is sqrt(10 / 3).
    targets = np.array([[3.0, 1.0, 7.0], [-3.0, -1.0, 7.0]])
    usual = np.sqrt(10 / 3)
    scale = standardising_scale(targets)
    assert scale.dtype == np.float32
    np.testing.assert_allclose(scale, [usual / 3, usual / 1, 10], rtol=1e-6)

    loss = make_regression_loss("mse", scale)
    first = float(loss(tf.constant([[3.0, 0, 0]]), tf.constant([[0.0, 0, 0]])))
    second = float(loss(tf.constant([[0.0, 1, 0]]), tf.constant([[0.0, 0, 0]])))
    assert first == pytest.approx(second) == pytest.approx(usual**2 / 3)


def test_targets_with_equal_deviations_or_no_variation_keep_their_scale():
    assert standardising_scale(np.array([[1.0, 0.0], [0.0, 1.0]])) == pytest.approx(1)
    assert standardising_scale(np.ones([4, 3])) == pytest.approx(1)
    assert standardising_scale(np.ones([1, 3])) == pytest.approx(1)
