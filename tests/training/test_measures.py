"""Measures of a batch, compared with known or individually counted values."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.training.summaries import (
    active_share,
    spread,
    target_measures,
    triplet_measures,
)

# Two images of an item, at 0 and 1, and one each of two others, at 1.2 and 3.
LINE = np.array([0.0, 1.0, 1.2, 3.0])
BETWEEN = np.abs(LINE[:, None] - LINE)
ITEMS = np.array([7, 7, 8, 9])


@pytest.mark.parametrize(
    ("margin", "share"),
    # d(a, n) is 1.2 and 3 from the first image, 0.2 and 2 from the second; d(a, p) is 1.
    [(0.1, 1 / 4), (0.3, 2 / 4), (1.5, 3 / 4), (2.5, 1.0)],
)
def test_the_share_of_active_triplets_matches_a_hand_made_batch(margin, share):
    assert active_share(BETWEEN, ITEMS, margin) == share


def test_a_triplet_exactly_at_the_margin_is_not_active():
    distances = np.array([[0.0, 1.0, 1.25], [1.0, 0.0, 1.25], [1.25, 1.25, 0.0]])
    items = np.array([0, 0, 1])
    assert active_share(distances, items, 0.25) == 0.0
    assert active_share(distances, items, 0.26) == 1.0


@pytest.mark.parametrize("items", [[], [1], [1, 1], [1, 2, 3]])
def test_without_triplets_there_is_no_share(items):
    count = len(items)
    assert active_share(np.zeros([count, count]), np.array(items), 1.0) is None


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    items=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    margin=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_the_share_equals_that_of_individually_counted_triplets(items, margin, seed):
    # Integers, because they often tie.
    distances = np.random.default_rng(seed).integers(0, 6, (len(items), len(items)))
    active = [
        distances[a, p] + margin > distances[a, n]
        for a, p, n in itertools.product(range(len(items)), repeat=3)
        if a != p and items[a] == items[p] and items[a] != items[n]
    ]
    found = active_share(distances, np.array(items), margin)
    assert found == (np.mean(active) if active else None)


def test_spread_is_0_for_one_point_and_1_for_unit_vectors_around_the_origin():
    assert spread(np.tile([[0.6, 0.8]], [5, 1])) == 0.0
    assert spread(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])) == 1.0


@settings(derandomize=True, deadline=None, max_examples=50)
@given(count=st.integers(1, 12), dim=st.integers(1, 5), seed=st.integers(0, 99))
def test_squared_spread_is_half_the_mean_squared_distance_of_two_points(count, dim, seed):
    points = np.random.default_rng(seed).normal(3.0, 1.0, (count, dim))
    squared = np.sum((points[:, None] - points) ** 2, axis=-1)
    assert spread(points) ** 2 == pytest.approx(squared.mean() / 2, abs=1e-9)


def test_a_batch_of_triplets_is_measured_with_the_distance_of_its_loss():
    embeddings = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    norms = np.array([1, 2, 6], np.float32)
    items = np.array([0, 0, 1])
    root = np.sqrt(2)
    for distance, positive, near, far in (
        ("L2", root, root, 2.0),
        ("squared-L2", 2.0, 2.0, 4.0),
        ("angular", 1.0, 1.0, 2.0),
    ):
        found = triplet_measures(items, embeddings, norms, margin=0.5, distance=distance)
        assert found.scalars == pytest.approx(
            {
                # The first image's negative is far, the second's is as near as the positive.
                "triplets/active_share": 1.0 if positive + 0.5 > far else 0.5,
                "distances/mean_to_positives": positive,
                "distances/mean_to_negatives": (near + far) / 2,
                "embeddings/spread": spread(embeddings),
                "embeddings/mean_norm_before_scaling": 3.0,
            },
            abs=1e-6,
        )
        np.testing.assert_allclose(found.histograms["distances/to_positives"], [positive])
        np.testing.assert_allclose(found.histograms["distances/to_negatives"], [far, near])
        np.testing.assert_array_equal(found.histograms["embeddings/norms"], norms)


def test_items_with_one_image_have_no_measures_of_positives():
    found = triplet_measures(
        np.arange(3), np.eye(3, dtype=np.float32), np.ones(3), margin=0.3, distance="L2"
    )
    assert "triplets/active_share" not in found.scalars
    assert "distances/mean_to_positives" not in found.scalars
    assert found.scalars["distances/mean_to_negatives"] == pytest.approx(np.sqrt(2))
    assert len(found.histograms["distances/to_positives"]) == 0


def test_only_the_first_images_of_a_huge_batch_are_measured():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(3000, 4)).astype(np.float32)
    items = np.arange(3000) // 2
    whole, part = (
        triplet_measures(items[:n], embeddings[:n], np.ones(n), margin=0.3, distance="L2")
        for n in (3000, 1024)
    )
    assert whole.scalars == part.scalars


def test_a_student_is_measured_against_its_targets():
    targets = np.array([[1, 0], [0, 2], [1, 0]], np.float32)
    embeddings = np.array([[1, 0], [1, 0], [-1, 0]], np.float32)
    found = target_measures(targets, embeddings, np.full(3, 2.0))
    distances = [0.0, np.sqrt(5), 2.0]
    assert found.scalars == pytest.approx(
        {
            "targets/mean_cosine": 0.0,
            "targets/mean_distance": np.mean(distances),
            "targets/spread": spread(targets),
            "embeddings/spread": spread(embeddings),
            "embeddings/mean_norm_before_scaling": 2.0,
        },
        abs=1e-6,
    )
    np.testing.assert_allclose(found.histograms["targets/distances"], distances, atol=1e-6)
