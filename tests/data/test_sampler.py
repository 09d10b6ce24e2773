import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.data.sampler import (
    VERTICAL_WEIGHTS,
    EpochSampler,
    PKSampler,
    WeightedSampler,
)


def sampler(items, p=3, k=2, seed=0, min_images=2):
    return PKSampler.from_items(
        np.asarray(items),
        items_per_batch=p,
        images_per_item=k,
        seed=seed,
        min_images=min_images,
    )


def batch(one, step):
    return tuple(np.asarray(part) for part in one.batch(tf.constant(step, tf.int64)))


def check_batch(one, items, positions, labels, p, k):
    """Asserts everything that must hold for any batch."""
    assert positions.shape == labels.shape == (p * k,)
    assert positions.dtype == np.int64
    assert labels.dtype == np.int32
    assert (np.unique(labels, return_counts=True)[1] == k).all()
    assert len(np.unique(labels)) == p
    for label in np.unique(labels):
        shown = positions[labels == label]
        (item,) = np.unique(items[shown])
        own = np.flatnonzero(items == item)
        assert set(shown) <= set(own)
        # As even as possible: distinct images if there are enough, otherwise repeated in turn.
        assert len(set(shown)) == min(k, len(own))
        assert np.ptp(np.unique(shown, return_counts=True)[1]) <= 1


@settings(derandomize=True, deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 7), min_size=2, max_size=12),
    st.integers(2, 5),
    st.integers(2, 4),
    st.integers(-(2**40), 2**40),
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 3]),
)
def test_batches_contain_p_items_with_k_images_each(sizes, p, k, seed, step, min_images):
    random = np.random.default_rng(abs(seed))
    items = random.permutation(np.repeat([f"item{i}" for i in range(len(sizes))], sizes))
    usable = sum(size >= min_images for size in sizes)
    if usable < 2:
        with pytest.raises(UserError, match=f"{usable} of {len(sizes)} items have {min_images}"):
            sampler(items, p, k, seed, min_images)
        return
    one = sampler(items, p, k, seed, min_images)
    assert one.steps_per_epoch == usable // min(p, usable)
    check_batch(one, items, *batch(one, step), min(p, usable), k)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.integers(2, 15), st.integers(2, 4), st.integers(0, 5), st.integers(0, 100))
def test_every_item_is_shown_once_an_epoch_except_the_remainder(count, p, epoch, seed):
    one = sampler(np.repeat(np.arange(count), 2), p, 2, seed)
    steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
    seen = np.concatenate([batch(one, step)[1][::2] for step in steps])
    assert len(seen) == len(set(seen)) == count - count % min(p, count)


def test_epochs_differ_in_the_order_of_items():
    one = sampler(np.repeat(np.arange(30), 2), 30)
    assert not np.array_equal(batch(one, 0)[1], batch(one, 1)[1])


def test_items_with_too_few_images_are_excluded():
    items = np.array(["a", "b", "b", "c", "c", "c", "d"])
    one = sampler(items, 9)
    assert one.items_per_batch == 2
    assert set(items[batch(one, 0)[0]]) == {"b", "c"}
    assert set(items[batch(sampler(items, 9, min_images=1), 0)[0]]) == {"a", "b", "c", "d"}


def test_memory_is_linear_even_if_one_item_has_most_of_the_images():
    items = np.concatenate([np.zeros(20_000, int), np.repeat(np.arange(1, 10_001), 2)])
    one = sampler(items, 3, 4)
    held = (one.positions, one.starts, one.counts)
    assert sum(part.nbytes for part in held) <= 3 * 8 * len(items)
    check_batch(one, items, *batch(one, 5), 3, 4)


def test_texts_and_their_codes_give_the_same_batches():
    texts = np.random.default_rng(0).permutation(np.repeat(["10", "9", "Z", "a", "é"], 3))
    numbers = np.unique(texts, return_inverse=True)[1]
    for step in range(3):
        for kind in (texts.astype(object), numbers):
            for one, other in zip(batch(sampler(texts), step), batch(sampler(kind), step)):
                np.testing.assert_array_equal(one, other)


def test_a_batch_depends_on_seed_and_step_only():
    items = np.repeat(np.arange(9), 4)
    first, again = sampler(items, seed=7), sampler(items, seed=7)
    for step in range(5):
        batch(first, step)
    tf.random.set_seed(99)
    graph = tf.function(again.batch)
    for step in (4, 0, 1000):
        for eager, resumed in zip(batch(first, step), graph(tf.constant(step, tf.int64))):
            np.testing.assert_array_equal(eager, resumed)
    assert not np.array_equal(batch(first, 0)[0], batch(sampler(items, seed=8), 0)[0])
    assert not np.array_equal(batch(first, 0)[0], batch(first, 1)[0])


def test_all_images_of_an_item_are_shown_eventually():
    one = sampler(np.repeat(np.arange(2), 6), 2, 2)
    shown = {int(position) for step in range(40) for position in batch(one, step)[0]}
    assert shown == set(range(12))


def test_the_shape_of_a_batch_is_known_in_a_graph():
    one = sampler(np.repeat(np.arange(9), 4))
    dataset = tf.data.Dataset.range(4).map(one.batch)
    assert [spec.shape for spec in dataset.element_spec] == [(6,), (6,)]


@pytest.mark.parametrize("items", [[], [1], [1, 1, 1], [1, 1, 2], [1, 2, 3]])
def test_too_few_items_are_refused(items):
    with pytest.raises(UserError, match="triplets need at least 2 such items"):
        sampler(np.array(items, dtype=int))


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 4), st.integers(-5, 100))
def test_an_epoch_sampler_covers_all_images_except_the_remainder(count, size, epoch, seed):
    one = EpochSampler.over(count, batch_size=size, seed=seed)
    steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
    seen = np.concatenate([one.batch(tf.constant(step, tf.int64)).numpy() for step in steps])
    assert len(seen) == len(set(seen)) == count - count % min(size, count)
    assert 0 <= seen.min() <= seen.max() < count


def test_an_epoch_sampler_depends_on_seed_and_step_only():
    def order(seed, step):
        one = EpochSampler.over(50, batch_size=50, seed=seed)
        return tuple(one.batch(tf.constant(step, tf.int64)).numpy())

    assert order(1, 3) == order(1, 3)
    assert len({order(1, 3), order(2, 3), order(1, 4)}) == 3


def test_an_epoch_sampler_without_images_is_refused():
    with pytest.raises(UserError, match="no images"):
        EpochSampler.over(0, batch_size=4, seed=0)


def weighted(verticals, weights, batch_size=4, seed=0, **more):
    return WeightedSampler.of_verticals(
        np.asarray(verticals), weights=weights, batch_size=batch_size, seed=seed, **more
    )


def epoch_of(one, epoch):
    steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
    return np.concatenate([one.batch(tf.constant(step, tf.int64)).numpy() for step in steps])


@settings(derandomize=True, deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.sampled_from(list(VERTICAL_WEIGHTS)),
    st.integers(0, 3),
    st.integers(-5, 100),
)
def test_verticals_and_their_images_are_shown_in_proportion_to_their_weights(
    sizes, weights, epoch, seed
):
    verticals = np.random.default_rng(abs(seed)).permutation(
        np.repeat(np.arange(len(sizes)), sizes)
    )
    total = len(verticals)
    one = weighted(verticals, weights, batch_size=total, seed=seed)
    seen = np.bincount(epoch_of(one, epoch), minlength=total)

    shares = {"images": np.array(sizes), "equal": np.ones(len(sizes)), "sqrt": np.sqrt(sizes)}
    expected = total * shares[weights] / shares[weights].sum()
    assert seen.sum() == total
    for vertical, size in enumerate(sizes):
        shown = seen[verticals == vertical]
        assert abs(shown.sum() - expected[vertical]) < 1 + 1e-6
        assert np.abs(shown - expected[vertical] / size).max() < 1 + 1e-6


def test_with_equal_weights_one_image_is_shown_as_often_as_ninety_nine_others():
    one = weighted(["bag"] + 99 * ["dress"], "equal", batch_size=10)
    for epoch in range(3):
        assert (epoch_of(one, epoch) == 0).sum() == 50


def test_with_sqrt_weights_nine_times_the_images_are_shown_three_times_as_often():
    one = weighted(4 * ["bag"] + 36 * ["dress"], "sqrt")
    assert (epoch_of(one, 0) < 4).sum() == 10


def test_a_factor_shows_images_of_a_vertical_more_often():
    verticals = 70 * ["dress"] + 10 * ["hat"]
    seen = epoch_of(weighted(verticals, "images", more_often={"hat": 3, "shoe": 9}), 0)
    # 30 to 70.
    assert (seen >= 70).sum() == 24
    equal = epoch_of(weighted(verticals, "equal", more_often={"hat": 3}), 0)
    assert (equal >= 70).sum() == 60


def test_images_shown_less_than_once_an_epoch_are_all_shown_eventually():
    one = weighted(["bag"] + 19 * ["dress"], "equal")
    seen = np.concatenate([epoch_of(one, epoch) for epoch in range(20)])
    assert set(seen) == set(range(20))


def test_a_weighted_batch_depends_on_seed_and_step_only():
    verticals = 3 * ["bag"] + 30 * ["dress"]
    first, again = weighted(verticals, "equal", seed=7), weighted(verticals, "equal", seed=7)
    assert first.seed == 7
    tf.random.set_seed(99)
    graph = tf.function(again.batch)
    for step in (4, 0, 1000):
        step = tf.constant(step, tf.int64)
        np.testing.assert_array_equal(first.batch(step), graph(step))
        assert first.batch(step).shape == (4,)
    others = [weighted(verticals, "equal", seed=8), weighted(verticals, "sqrt", seed=7)]
    for other in others:
        assert not np.array_equal(epoch_of(first, 0), epoch_of(other, 0))
    assert not np.array_equal(epoch_of(first, 0), epoch_of(first, 1))


def test_unknown_weights_and_missing_images_are_refused():
    with pytest.raises(UserError, match="weights=even: expected one of images, equal, sqrt"):
        weighted(["bag"], "even")
    with pytest.raises(UserError, match="no images"):
        weighted([], "equal")
