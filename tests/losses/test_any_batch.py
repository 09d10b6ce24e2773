import numpy as np
import pytest
import tensorflow as tf
from loss_batches import make_batch, value_and_gradient

from apparel_embed.losses.distances import DISTANCES
from apparel_embed.losses.semi_hard import semi_hard_triplet_loss
from apparel_embed.losses.triplets import hard_triplet_loss, lifted_structure_loss

pytestmark = pytest.mark.slow

LOSSES = pytest.mark.parametrize(
    "loss", [semi_hard_triplet_loss, hard_triplet_loss, lifted_structure_loss]
)
HOSTILE = {
    "zero vectors": (np.arange(4) // 2, np.zeros((4, 3))),
    "long vectors": (np.arange(4) // 2, 200 * np.ones((4, 3))),
    "one item": (np.zeros(4, int), np.ones((4, 3))),
    "one image": (np.zeros(1, int), np.ones((1, 3))),
    "no image": (np.zeros(0, int), np.ones((0, 3))),
}


@LOSSES
@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_hostile_batches_give_finite_values_and_gradients(loss, metric, kind):
    for name, (labels, embeddings) in HOSTILE.items():
        value, gradient = value_and_gradient(
            lambda *batch: loss(*batch, distance_metric=metric), labels, tf.cast(embeddings, kind)
        )
        assert value.dtype == gradient.dtype == tf.as_dtype(kind).as_numpy_dtype
        assert np.isfinite(float(value)), name
        assert np.isfinite(gradient.astype(np.float64)).all(), name


@LOSSES
@pytest.mark.parametrize("jit_compile", [False, True])
def test_one_graph_takes_batches_of_any_size(loss, jit_compile):
    traced = []

    @tf.function(
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None])],
    )
    def step(labels, embeddings):
        traced.append(True)
        return loss(labels, embeddings, 0.3)

    for size in (1, 12, 33):
        labels, embeddings = make_batch(size, size, 4, 7, "normal")
        expected = loss(labels, embeddings, 0.3)
        np.testing.assert_allclose(step(labels, embeddings), expected, rtol=1e-5, atol=1e-5)
    assert len(traced) == 1
