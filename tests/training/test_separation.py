"""Groups kept apart: what changes between them, and that nothing does within."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.errors import UserError
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.input import InputConfig
from apparel_embed.training.optimization import OptimizationConfig
from apparel_embed.training.separation import separate_groups
from apparel_embed.training.strategy import start_afresh
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.targets import TargetsConfig, Teacher, compute_targets

MODEL = ModelConfig(image_size=32, embedding_dim=8)


def unit(rng, count, dim):
    rows = rng.normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def squared_distances(first, second):
    differences = first[:, np.newaxis].astype(np.float64) - second[np.newaxis]
    return np.sum(differences**2, axis=-1)


@settings(derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dim=st.integers(2, 16),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    strength=st.floats(0.01, 0.99),
)
def test_the_ranking_within_a_group_stays_and_groups_move_apart(seed, dim, sizes, strength):
    rng = np.random.default_rng(seed)
    groups = [unit(rng, size, dim) for size in sizes]

    apart = separate_groups(groups, strength)

    shrunk = 1 - strength**2
    for index, (before, after) in enumerate(zip(groups, apart)):
        assert after.dtype == np.float32
        assert after.shape == (len(before), dim + len(sizes))
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)
        old, new = squared_distances(before, before), squared_distances(after, after)
        np.testing.assert_allclose(new, shrunk * old, atol=1e-6)
        # Whatever was farther by more than rounding still is.
        farther = old[:, :, np.newaxis] - old[:, np.newaxis]
        still = new[:, :, np.newaxis] - new[:, np.newaxis]
        assert (still[farther > 2e-6 / shrunk] > 0).all()
        for other in range(index):
            between = squared_distances(before, groups[other])
            np.testing.assert_allclose(
                squared_distances(after, apart[other]),
                shrunk * between + 2 * strength**2,
                atol=1e-5,
            )


def test_from_the_square_root_of_two_thirds_groups_are_farther_apart_than_they_are_wide():
    widest = np.array([[1, 0], [-1, 0]], np.float32)
    first, second = separate_groups([widest, widest], 0.82)
    assert squared_distances(first, first).max() < squared_distances(first, second).min()
    first, second = separate_groups([widest, widest], 0.81)
    assert squared_distances(first, first).max() > squared_distances(first, second).min()


def test_no_strength_leaves_targets_as_they_are():
    groups = [unit(np.random.default_rng(0), 3, 4)]
    assert separate_groups(groups, 0.0)[0] is groups[0]


@pytest.mark.parametrize("strength", [-0.1, 1.0, float("nan")])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(UserError, match=f"--separate_groups={strength}: allowed are 0 to 0.99"):
        separate_groups([np.ones([1, 1])], strength)


@pytest.fixture
def targets(tiny_prepared, tmp_path):
    for seed, name in enumerate(("bags", "dresses")):
        start_afresh(seed)
        save_embedding_model(tmp_path / name, build_embedding_model(MODEL), MODEL)
    some = [Teacher((name,), tmp_path / name) for name in ("bags", "dresses")]

    def compute(strength):
        config = TargetsConfig(separation=strength)
        return compute_targets(tiny_prepared, some, reference=tmp_path / "dresses", config=config)[
            :2
        ]

    return compute


@pytest.mark.slow
def test_targets_tell_their_group_after_they_are_aligned(tiny_prepared, targets):
    records, plain = targets(0.0)
    again, apart = targets(0.6)

    np.testing.assert_array_equal(again, records)
    np.testing.assert_allclose(apart[:, :8], 0.8 * plain, atol=1e-6)
    is_bag = tiny_prepared.column("vertical")[records] == "bags"
    np.testing.assert_allclose(apart[:, 8], np.where(is_bag, 0.6, 0), atol=1e-6)
    np.testing.assert_allclose(apart[:, 9], np.where(is_bag, 0, 0.6), atol=1e-6)


@pytest.mark.slow
def test_a_student_of_such_targets_starts_as_a_shorter_model_with_zeros_appended(
    tiny_prepared, targets, tmp_path
):
    records, apart = targets(0.6)
    config = StudentConfig(
        ModelConfig(image_size=32, embedding_dim=10),
        OptimizationConfig(steps=1, learning_rate=0.0, weight_decay=0.0),
        input=InputConfig(augment=AugmentConfig(flip=False)),
    )
    train_student(
        tiny_prepared, records, apart, config, tmp_path / "student", start=tmp_path / "bags"
    )

    kept, _ = load_embedding_model(tmp_path / "student/model")
    start, _ = load_embedding_model(tmp_path / "bags")
    for ours, expected in zip(kept.trainable_variables, start.trainable_variables):
        there = tuple(slice(side) for side in expected.shape)
        np.testing.assert_array_equal(ours.numpy()[there], expected.numpy())
    assert not kept.get_layer("projection").kernel.numpy()[:, 8:].any()
