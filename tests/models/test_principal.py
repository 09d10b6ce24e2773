import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apparel_embed.models.embedding import (
    POOLINGS,
    ModelConfig,
    build_embedding_model,
    frozen_feature_model,
    trunk_model,
)
from apparel_embed.models.pooling import NORM
from apparel_embed.models.principal import project_principally

IMAGES = tf.random.stateless_uniform([24, 32, 32, 3], [1, 2], 0, 255)


def model_of(pooling="average", dim=8):
    tf.keras.utils.set_random_seed(0)
    return build_embedding_model(ModelConfig(image_size=32, embedding_dim=dim, pooling=pooling))


def cosines(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("pooling", POOLINGS)
def test_embeddings_start_with_the_cosines_of_centred_features(pooling):
    model = model_of(pooling, dim=23)  # 24 centred images span at most 23 dimensions.
    features = trunk_model(model)(IMAGES).numpy()
    project_principally(model, features)

    pooled = model.get_layer("pooling").output
    seen = tf.keras.Model(model.input, pooled)(IMAGES, training=False).numpy()
    expected = cosines(seen - seen.mean(axis=0))
    np.testing.assert_allclose(cosines(model(IMAGES).numpy()), expected, atol=1e-3)


def test_few_principal_dimensions_keep_distances_better_than_a_random_projection():
    random, principal = model_of(), model_of()
    project_principally(principal, trunk_model(principal)(IMAGES).numpy())

    features = frozen_feature_model(principal)(IMAGES).numpy()
    expected = cosines(features - features.mean(axis=0))
    off = {
        name: np.abs(cosines(model(IMAGES).numpy()) - expected).mean()
        for name, model in (("random", random), ("principal", principal))
    }
    assert off["principal"] < 0.25 * off["random"]


def test_norms_get_the_statistics_of_the_features():
    model = model_of("pyramid")
    features = trunk_model(model)(IMAGES).numpy()
    project_principally(model, features)

    norm = model.get_layer(NORM)
    np.testing.assert_allclose(norm.moving_mean, features.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, features.var(axis=0), rtol=1e-4)
    normed = norm(features, training=False).numpy()
    np.testing.assert_allclose(normed.mean(axis=0), 0, atol=1e-3)


@settings(derandomize=True, deadline=None, max_examples=6)
@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 9), st.just(192)), elements=st.floats(-4, 4, width=32)
    )
)
def test_a_projection_is_orthogonal_and_finite_whatever_the_features(features):
    model = model_of(dim=200)  # More dimensions than small_cnn has features.
    project_principally(model, features)

    kernel, bias = model.get_layer("projection").get_weights()
    assert np.isfinite(bias).all()
    np.testing.assert_allclose(kernel.T @ kernel, np.diag([1.0] * 192 + [0.0] * 8), atol=1e-4)
    again = model_of(dim=200)
    project_principally(again, features)
    np.testing.assert_array_equal(again.get_layer("projection").kernel, kernel)
