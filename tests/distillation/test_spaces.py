"""Rotated and joined spaces, on random numbers."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from apparel_embed.distillation.spaces import (
    alignment_rotation,
    joint_embeddings,
    mean_cosine,
)


def unit(rng, count, dim):
    rows = rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 32))
def test_a_rotated_space_is_rotated_back(seed, dim):
    rng = np.random.default_rng(seed)
    reference = unit(rng, 4 * dim, dim)
    turned = reference @ ortho_group.rvs(dim, random_state=seed).astype(np.float32)

    aligned = turned @ alignment_rotation(turned, reference)

    np.testing.assert_allclose(aligned, reference, atol=1e-4)


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 32), count=st.integers(1, 50))
def test_alignment_preserves_distances_and_never_lowers_the_cosine(seed, dim, count):
    rng = np.random.default_rng(seed)
    embeddings, reference = unit(rng, count, dim), unit(rng, count, dim)

    rotation = alignment_rotation(embeddings, reference)
    aligned = embeddings @ rotation

    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-5)
    np.testing.assert_allclose(aligned @ aligned.T, embeddings @ embeddings.T, atol=1e-4)
    assert mean_cosine(aligned, reference) >= mean_cosine(embeddings, reference) - 1e-5


def test_a_zero_reference_preserves_distances():
    embeddings = unit(np.random.default_rng(0), 6, 4)

    aligned = embeddings @ alignment_rotation(embeddings, np.zeros_like(embeddings))

    np.testing.assert_allclose(aligned @ aligned.T, embeddings @ embeddings.T, atol=1e-5)
    assert mean_cosine(aligned, np.zeros_like(embeddings)) == 0


random_parts = st.builds(
    lambda seed, count, lengths: _unit_parts(np.random.default_rng(seed), count, lengths),
    st.integers(0, 2**31 - 1),
    st.integers(1, 12),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
)
few = settings(derandomize=True, deadline=None, max_examples=40)


def _unit_parts(random, count, lengths):
    parts = [random.normal(size=[count, length]) for length in lengths]
    return [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in parts]


def everything(parts):
    return np.ones(len(parts[0]), bool)


@few
@given(random_parts, st.integers(0, 6))
def test_with_enough_dimensions_cosines_are_the_mean_of_those_of_the_parts(parts, more):
    total = sum(part.shape[1] for part in parts)
    joint = joint_embeddings(parts, everything(parts), dim=total + more)

    expected = np.mean([part @ part.T for part in parts], axis=0)
    np.testing.assert_allclose(joint @ joint.T, expected, atol=1e-5)


@few
@given(random_parts, st.integers(1, 20))
def test_a_joint_has_the_requested_dimensions_padded_with_zeros_and_unit_length(parts, dim):
    total = sum(part.shape[1] for part in parts)
    joint = joint_embeddings(parts, everything(parts), dim)

    assert joint.shape == (len(parts[0]), dim)
    assert joint.dtype == np.float32
    lengths = np.linalg.norm(joint, axis=1)
    # With fewer dimensions, an image may be orthogonal to all directions: it becomes zero.
    np.testing.assert_allclose(lengths[(lengths > 0) | (dim >= total)], 1, atol=1e-5)
    assert lengths.max() > 0
    np.testing.assert_array_equal(joint[:, total:], 0)


@few
@given(random_parts)
def test_a_part_with_longer_vectors_has_more_weight(parts):
    longer = [2 * parts[0], *parts[1:]]
    joint = joint_embeddings(longer, everything(parts), dim=20)

    weights = np.array([4] + [1] * (len(parts) - 1))
    expected = np.average([part @ part.T for part in parts], axis=0, weights=weights)
    np.testing.assert_allclose(joint @ joint.T, expected, atol=1e-5)


def test_directions_depend_on_the_fitted_images():
    # The fitted images lie along two axes; the third image has another axis, which is dropped.
    part = np.eye(3, dtype=np.float32)
    joint = joint_embeddings([part], np.array([True, True, False]), dim=2)

    np.testing.assert_allclose(joint @ joint.T, np.diag([1, 1, 0]), atol=1e-6)
    # It becomes zero, not NaN.
    assert np.isfinite(joint).all()


def test_the_directions_with_the_most_scatter_are_kept():
    random = np.random.default_rng(0)
    wide = (random.normal(size=[200, 6]) * [5, 4, 0.01, 3, 0.01, 0.01]).astype(np.float32)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    joint = joint_embeddings([wide], np.ones(200, bool), dim=3)

    np.testing.assert_allclose(joint @ joint.T, wide @ wide.T, atol=0.02)
    # The first direction has the most scatter.
    lengths = np.linalg.norm(joint, axis=0)
    assert lengths[0] > lengths[1] > lengths[2]


def test_images_that_are_not_fitted_have_no_effect():
    random = np.random.default_rng(1)
    (part,) = _unit_parts(random, 9, [5])
    fitted = np.arange(9) < 6
    changed = np.where(fitted[:, np.newaxis], part, part[::-1])
    before, after = (joint_embeddings([one], fitted, dim=3)[fitted] for one in (part, changed))
    np.testing.assert_array_equal(before, after)
