import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.training.execution import StepRandomness

# Ops whose random numbers depend on how often they have run.
STATEFUL = ("Random", "Multinomial", "ParameterizedTruncatedNormal", "Rng", "StatefulUniform")


def dropping_model(rate=0.25, noise_shape=None):
    inputs = tf.keras.Input([4, 8])
    x = tf.keras.layers.Dropout(rate, noise_shape=noise_shape)(inputs)
    inner = tf.keras.Sequential([tf.keras.layers.Dropout(rate, noise_shape=noise_shape)])
    return tf.keras.Model(inputs, [x, inner(inputs)])


def dropped(seed, step, size=16, **options):
    """Returns the output of two dropout layers for ones, in a graph: [2, size, 4, 8]."""
    model = dropping_model(**options)
    randomness = StepRandomness(model, seed)

    @tf.function
    def call(step):
        randomness.start(step)
        return model(tf.ones([size, 4, 8]), training=True)

    return np.stack([one.numpy() for one in call(tf.constant(step, tf.int64))])


def test_dropped_values_depend_only_on_seed_step_and_layer():
    first = dropped(3, 7)
    np.testing.assert_array_equal(first, dropped(3, 7))
    for other in (dropped(3, 8), dropped(4, 7), first[::-1]):
        assert not np.array_equal(first, other)


def test_values_are_dropped_at_the_rate_and_the_others_scaled_up():
    values = dropped(0, 1, size=512, rate=0.25)
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    # 32,768 draws have a standard deviation of 0.0024.
    np.testing.assert_allclose((values == 0).mean(), 0.25, atol=0.01)


def test_noise_shape_drops_whole_images():
    values = dropped(0, 1, size=64, noise_shape=(None, 1, 1))
    flat = values.reshape(2, 64, -1)
    np.testing.assert_array_equal(flat.min(axis=2), flat.max(axis=2))
    assert 0 < (flat[:, :, 0] == 0).sum() < 64


def test_nothing_is_dropped_in_inference():
    model = dropping_model()
    StepRandomness(model, 0)
    for one in model(tf.ones([2, 4, 8]), training=False):
        np.testing.assert_array_equal(one, np.ones([2, 4, 8]))


def random_operations(model):
    """Returns the stateful and the stateless kinds of random operations in a training step."""

    @tf.function
    def forward(images):
        return model(images, training=True)

    shape = [2, *model.input_shape[1:]]
    graph = forward.get_concrete_function(tf.TensorSpec(shape)).graph.as_graph_def()
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    kinds = {node.op for node in nodes}
    stateless = {kind for kind in kinds if kind.startswith("StatelessRandom")}
    return {kind for kind in kinds if kind.startswith(STATEFUL)}, stateless


def test_the_random_numbers_of_keras_are_stateful():
    assert random_operations(dropping_model()) == ({"RandomUniform"}, set())


# The backbones with dropout, and the default.
@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["efficientnet_lite_b0", "efficientnet_v2_b0", "small_cnn"])
def test_all_random_numbers_of_a_step_are_stateless(backbone):
    model = build_embedding_model(ModelConfig(backbone=backbone, image_size=32, embedding_dim=4))
    StepRandomness(model, 0).start(tf.constant(5, tf.int64))
    stateful, stateless = random_operations(model)

    assert stateful == set()
    assert bool(stateless) == (backbone != "small_cnn")
