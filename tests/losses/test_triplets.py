import numpy as np
import pytest
import tensorflow as tf
from addons_losses import METRICS, needs_addons, tfa
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import batches, value_and_gradient

from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss


@needs_addons
@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    batches(),
    st.floats(0.0, 5.0),
    st.booleans(),
    st.sampled_from([*METRICS, lambda x: tf.abs(tf.matmul(x, x, transpose_b=True))]),
)
def test_hard_loss_has_the_value_and_gradient_of_addons(batch, margin, soft, metric):
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
        # Between equal images TFA's own gradient is a rounding error.
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-4)


def test_hard_loss_matches_a_hand_computed_example():
    # Distances to the positive and the negative: from 0: 3, 4; 3: 3, 1; 4: none, 1; 9: none, 5.
    embeddings = np.array([[0.0], [3.0], [4.0], [9.0]], np.float32)
    value = hard_triplet_loss(np.array([0, 0, 1, 2]), embeddings, margin=1.5)
    # An anchor without positives is its own positive.
    assert float(value) == pytest.approx((0.5 + 3.5 + 0.5 + 0.0) / 4)


def test_the_soft_loss_does_not_overflow():
    embeddings = np.array([[0.0], [5000.0], [1.0], [2.0]], np.float32)
    value, gradient = value_and_gradient(
        lambda *batch: hard_triplet_loss(*batch, soft=True), np.array([0, 0, 1, 1]), embeddings
    )
    assert value == pytest.approx((4999 + 2 + 4998 - 4998 + np.log(2) * 2) / 4, rel=1e-2)
    assert np.isfinite(gradient).all()


def lifted_structure_reference(labels, embeddings, margin):
    """Returns the loss by its definition, pair by pair, in float64."""
    distance = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=-1)
    losses = []
    for i, j in np.argwhere(labels[:, None] == labels):
        if i != j:
            exponents = [margin - distance[k][labels != labels[i]] for k in (i, j)]
            violation = np.log(np.exp(np.concatenate(exponents)).sum()) + distance[i, j]
            losses.append(max(0.0, violation) ** 2 / 2)
    return np.mean(losses)


# For equal distances TFA's gradient is off by up to some hundredths, compared with a difference
# quotient. The tests below therefore cover batches with equal images.
@needs_addons
@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=100)
@given(batches(("normal", "unit", "clusters")), st.floats(0.0, 5.0))
def test_lifted_structure_has_the_value_and_gradient_of_addons(batch, margin):
    labels, embeddings = batch
    value, gradient = value_and_gradient(
        lambda *batch: lifted_structure_loss(*batch, margin), labels, embeddings
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    items = len(set(labels))
    if items in (1, len(labels)):
        assert value == 0
        assert (gradient == 0).all()
        return
    expected, expected_gradient = value_and_gradient(
        lambda *batch: tfa.losses.lifted_struct_loss(*batch, margin), labels, embeddings
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(batches(("repeated", "grid"), sizes=(12,)), st.floats(0.0, 2.0))
def test_lifted_structure_matches_the_definition_with_equal_images(batch, margin):
    labels, embeddings = batch
    value, gradient = value_and_gradient(
        lambda *batch: lifted_structure_loss(*batch, margin), labels, embeddings
    )
    assert np.isfinite(gradient).all()
    if len(set(labels)) not in (1, len(labels)):
        expected = lifted_structure_reference(labels, embeddings.astype(np.float64), margin)
        # The distance of equal images is the root of a rounding error.
        assert value == pytest.approx(expected, abs=5e-3)


def test_lifted_structure_gradient_at_equal_distances_is_the_difference_quotient():
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    embeddings = np.array([[1, 0], [0, -2], [0, 0], [1, 1], [0.5, 0], [0, -1], [-1, 0]], np.float64)
    loss = lambda labels, embeddings: lifted_structure_loss(labels, embeddings, 0.7)  # noqa: E731
    _, gradient = value_and_gradient(loss, labels, embeddings)
    for place in np.ndindex(embeddings.shape):
        step = np.zeros_like(embeddings)
        step[place] = 1e-5
        change = loss(labels, embeddings + step) - loss(labels, embeddings - step)
        assert gradient[place] == pytest.approx(float(change) / 2e-5, abs=1e-6)
