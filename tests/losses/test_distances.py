import numpy as np
import pytest
import tensorflow as tf
from addons_losses import needs_addons, tfa
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_batches import batches, value_and_gradient

from apparel_embed.losses.distances import DISTANCES, pairwise_distances

# Looked up when they are called: TFA may not be installed.
ADDONS = {
    "L2": lambda x: tfa.losses.metric_learning.pairwise_distance(x, squared=False),
    "squared-L2": lambda x: tfa.losses.metric_learning.pairwise_distance(x, squared=True),
    "angular": lambda x: tfa.losses.metric_learning.angular_distance(x),
}


@needs_addons
@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=100)
@given(batches(sizes=range(1, 30)), st.sampled_from(list(DISTANCES)))
def test_distances_equal_those_of_addons_bit_for_bit(batch, distance):
    _, embeddings = batch
    ours = pairwise_distances(tf.constant(embeddings), distance)
    np.testing.assert_array_equal(ours, ADDONS[distance](tf.constant(embeddings)))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(batches(kinds=("repeated", "grid")), st.sampled_from(list(DISTANCES)))
def test_the_gradient_is_finite_with_equal_images_and_zero_vectors(batch, distance):
    _, embeddings = batch
    _, gradient = value_and_gradient(
        lambda _, embeddings: tf.reduce_sum(pairwise_distances(embeddings, distance)),
        None,
        embeddings,
    )
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_opposite_unit_vectors_have_the_greatest_distance(distance):
    opposites = tf.constant([[0.6, 0.8], [-0.6, -0.8]])
    assert float(pairwise_distances(opposites, distance)[0, 1]) == pytest.approx(
        DISTANCES[distance], abs=1e-6
    )
