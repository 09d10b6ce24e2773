import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.losses.regression import mean_squared_error


def test_value_worked_out_by_hand():
    targets = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    embeddings = tf.constant([[0.0, 1.0], [0.0, 0.5]])
    assert float(mean_squared_error(targets, embeddings)) == pytest.approx((2 + 0.25) / 4)
    assert float(mean_squared_error(targets, targets)) == 0


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_is_a_function_of_the_angle_between_unit_vectors(degrees):
    angle = np.deg2rad(degrees)
    targets = tf.constant([[1.0, 0.0, 0.0, 0.0]])
    embeddings = tf.constant([[np.cos(angle), np.sin(angle), 0.0, 0.0]], tf.float32)
    expected = (2 - 2 * np.cos(angle)) / 4
    assert float(mean_squared_error(targets, embeddings)) == pytest.approx(expected, abs=1e-6)


def test_gradient_points_from_target_to_embedding():
    targets, embeddings = tf.constant([[1.0, 2.0]]), tf.Variable([[3.0, 0.0]])
    with tf.GradientTape() as tape:
        loss = mean_squared_error(targets, embeddings)
    np.testing.assert_allclose(tape.gradient(loss, embeddings), [[2.0, -2.0]])
