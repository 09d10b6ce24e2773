import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from apparel_embed.training.alignment import alignment_rotation, mean_cosine, principal_directions


def unit(rng, count, dim):
    rows = rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 32))
def test_a_rotated_space_is_turned_back(seed, dim):
    rng = np.random.default_rng(seed)
    reference = unit(rng, 4 * dim, dim)
    turned = reference @ ortho_group.rvs(dim, random_state=seed).astype(np.float32)

    aligned = turned @ alignment_rotation(turned, reference)

    np.testing.assert_allclose(aligned, reference, atol=1e-4)


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 32), count=st.integers(1, 50))
def test_alignment_keeps_distances_and_never_lowers_the_cosine(seed, dim, count):
    rng = np.random.default_rng(seed)
    embeddings, reference = unit(rng, count, dim), unit(rng, count, dim)

    rotation = alignment_rotation(embeddings, reference)
    aligned = embeddings @ rotation

    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-5)
    np.testing.assert_allclose(aligned @ aligned.T, embeddings @ embeddings.T, atol=1e-4)
    assert mean_cosine(aligned, reference) >= mean_cosine(embeddings, reference) - 1e-5


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 16), length=st.integers(1, 16))
def test_principal_directions_hold_as_much_variance_as_any(seed, dim, length):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, length)) * np.arange(1, length + 1) + 5

    mean, directions = principal_directions(features, dim)

    kept = min(dim, length)
    np.testing.assert_allclose(mean, features.mean(axis=0))
    assert directions.shape == (length, dim)
    np.testing.assert_allclose(
        directions.T @ directions, np.diag([1.0] * kept + [0.0] * (dim - kept)), atol=1e-9
    )
    variances = ((features - mean) @ directions).var(axis=0)
    assert (np.diff(variances) <= 1e-9).all()
    singular = np.linalg.svd(features - mean, compute_uv=False)
    np.testing.assert_allclose(variances[:kept], (singular**2 / 40)[:kept], rtol=1e-6)


def test_one_picture_has_directions_too():
    mean, directions = principal_directions(np.ones([1, 3], np.float32), 2)

    np.testing.assert_array_equal(mean, 1)
    np.testing.assert_allclose(directions.T @ directions, np.eye(2), atol=1e-9)


def test_a_reference_of_no_length_leaves_distances_as_they_are():
    embeddings = unit(np.random.default_rng(0), 6, 4)

    aligned = embeddings @ alignment_rotation(embeddings, np.zeros_like(embeddings))

    np.testing.assert_allclose(aligned @ aligned.T, embeddings @ embeddings.T, atol=1e-5)
    assert mean_cosine(aligned, np.zeros_like(embeddings)) == 0
