"""Views of a picture, by a tiny model."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.training.strategy import start_afresh
from apparel_embed.training.views import embed_views, mean_direction

pytestmark = pytest.mark.slow

STILL = AugmentConfig(flip=False, zoom=0.0, translation=0.0)
STRONG = AugmentConfig(zoom=0.5, translation=0.3, brightness=0.5)


@pytest.fixture(scope="module")
def model():
    start_afresh(0)
    return build_embedding_model(ModelConfig(image_size=32, embedding_dim=8))


@pytest.fixture
def embed(model, tiny_prepared):
    records = tiny_prepared.select(split="train")

    def embed(count, augment=STRONG, seed=0):
        return embed_views(model, tiny_prepared, records, count=count, augment=augment, seed=seed)

    return embed


def test_one_view_is_the_picture_itself_to_the_bit(embed, model, tiny_prepared):
    itself = Embedder(model).records(tiny_prepared, tiny_prepared.select(split="train"))
    np.testing.assert_array_equal(embed(1), itself)


def test_views_that_change_nothing_leave_targets_as_they_are(embed):
    np.testing.assert_allclose(embed(4, STILL), embed(1), atol=1e-5)


def test_views_move_targets_which_keep_unit_length(embed):
    averaged = embed(3)
    assert averaged.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(averaged, axis=1), 1, atol=1e-5)
    assert np.abs(averaged - embed(1)).max() > 1e-3


def test_views_are_a_function_of_the_seed(embed):
    np.testing.assert_array_equal(embed(3, seed=5), embed(3, seed=5))
    assert np.abs(embed(3, seed=5) - embed(3, seed=6)).max() > 1e-4


def test_each_view_differs_and_more_of_them_keep_the_first_ones(embed):
    one, two, three = (embed(count).astype(np.float64) for count in (1, 2, 3))
    # The mean of two unit vectors lies in their plane; that of three with another does not.
    second = 2 * np.sum(one * two, axis=1, keepdims=True) * two - one
    np.testing.assert_allclose(np.linalg.norm(second, axis=1), 1, atol=1e-5)
    third = three - np.sum(three * two, axis=1, keepdims=True) * two
    assert np.abs(second - one).max() > 1e-3
    assert np.abs(third).max() > 1e-4


@pytest.mark.parametrize("count", [0, 17])
def test_too_few_or_too_many_views_are_refused(embed, count):
    with pytest.raises(UserError, match=f"--target_views={count}: allowed are 1 to 16"):
        embed(count)


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(2, 16), views=st.integers(1, 16))
def test_the_mean_direction_has_unit_length_and_the_direction_of_the_sum(seed, dim, views):
    total = np.random.default_rng(seed).normal(size=(5, dim)) * views
    mean = mean_direction(total, np.zeros([5, dim], np.float32))
    np.testing.assert_allclose(np.linalg.norm(mean, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        np.sum(mean * total, axis=1), np.linalg.norm(total, axis=1), rtol=1e-5
    )


def test_views_that_cancel_out_leave_the_picture_itself_and_nan_is_not_hidden():
    itself = np.array([[0.6, 0.8], [1, 0], [0, 1]], np.float32)
    total = np.array([[0, 0], [1e-9, 0], [np.nan, 1]])
    found = mean_direction(total, itself)
    np.testing.assert_array_equal(found[:2], itself[:2])
    assert np.isnan(found[2]).any()
