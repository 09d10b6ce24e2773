import numpy as np
import pytest
import tensorflow as tf
import tensorflow_addons as tfa
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import batches, value_and_gradient

from apparel_embed.losses.hard import hard_triplet_loss

METRICS = ("L2", "squared-L2", "angular")


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    batches(),
    st.floats(0.0, 5.0),
    st.booleans(),
    st.sampled_from([*METRICS, lambda x: tf.abs(tf.matmul(x, x, transpose_b=True))]),
)
def test_value_and_gradient_are_those_of_addons(batch, margin, soft, metric):
    labels, embeddings = batch
    value, gradient = value_and_gradient(
        lambda *batch: hard_triplet_loss(*batch, margin, soft, metric), labels, embeddings
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if len(set(labels)) == len(labels):
        assert value == 0
        assert (gradient == 0).all()
        return
    expected, expected_gradient = value_and_gradient(
        lambda *batch: tfa.losses.triplet_hard_loss(*batch, margin, soft, metric),
        labels,
        embeddings,
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    if np.isfinite(expected_gradient).all():
        # Between equal pictures, which rounding sets apart, TFA's own gradient is rounding.
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-4)


def test_value_worked_out_by_hand():
    # On a line; from 0: positive 3, negative 4; from 3: 3 and 1; from 4: none and 1; from 9: 9 - 3.
    embeddings = np.array([[0.0], [3.0], [4.0], [9.0]], np.float32)
    value = hard_triplet_loss(np.array([0, 0, 1, 2]), embeddings, margin=1.5)
    # An anchor without positives is its own positive.
    assert float(value) == pytest.approx((0.5 + 3.5 + 0.5 + 0.0) / 4)


def test_soft_does_not_overflow():
    embeddings = np.array([[0.0], [5000.0], [1.0], [2.0]], np.float32)
    value, gradient = value_and_gradient(
        lambda *batch: hard_triplet_loss(*batch, soft=True), np.array([0, 0, 1, 1]), embeddings
    )
    assert value == pytest.approx((4999 + 2 + 4998 - 4998 + np.log(2) * 2) / 4, rel=1e-2)
    assert np.isfinite(gradient).all()
