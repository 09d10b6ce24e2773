import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from apparel_embed.distillation.alignment import alignment_rotation, mean_cosine


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


def test_a_reference_of_no_length_leaves_distances_as_they_are():
    embeddings = unit(np.random.default_rng(0), 6, 4)

    aligned = embeddings @ alignment_rotation(embeddings, np.zeros_like(embeddings))

    np.testing.assert_allclose(aligned @ aligned.T, embeddings @ embeddings.T, atol=1e-5)
    assert mean_cosine(aligned, np.zeros_like(embeddings)) == 0
