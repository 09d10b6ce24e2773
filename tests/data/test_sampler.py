import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.data.sampler import EpochSampler, PKSampler
from apparel_embed.errors import UserError


def sampler(items, p=3, k=2, seed=0, min_pictures=2):
    return PKSampler.from_items(
        np.asarray(items),
        items_per_batch=p,
        pictures_per_item=k,
        seed=seed,
        min_pictures=min_pictures,
    )


def batch(one, step):
    return tuple(np.asarray(part) for part in one.batch(tf.constant(step, tf.int64)))


def check_batch(one, items, positions, labels, p, k):
    """Asserts all that must hold for any batch."""
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
        # As even as can be: all distinct if there are enough pictures, else each shown in turn.
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
def test_batches_hold_p_items_with_k_pictures_each(sizes, p, k, seed, step, min_pictures):
    random = np.random.default_rng(abs(seed))
    items = random.permutation(np.repeat([f"item{i}" for i in range(len(sizes))], sizes))
    usable = sum(size >= min_pictures for size in sizes)
    if usable < 2:
        with pytest.raises(UserError, match=f"{usable} of {len(sizes)} items have {min_pictures}"):
            sampler(items, p, k, seed, min_pictures)
        return
    one = sampler(items, p, k, seed, min_pictures)
    assert one.steps_per_epoch == usable // min(p, usable)
    check_batch(one, items, *batch(one, step), min(p, usable), k)


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.integers(2, 15), st.integers(2, 4), st.integers(0, 5), st.integers(0, 100))
def test_every_item_comes_once_an_epoch_but_for_the_remainder(count, p, epoch, seed):
    one = sampler(np.repeat(np.arange(count), 2), p, 2, seed)
    steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
    seen = np.concatenate([batch(one, step)[1][::2] for step in steps])
    assert len(seen) == len(set(seen)) == count - count % min(p, count)


def test_epochs_differ_in_the_order_of_items():
    one = sampler(np.repeat(np.arange(30), 2), 30)
    assert not np.array_equal(batch(one, 0)[1], batch(one, 1)[1])


def test_items_with_too_few_pictures_are_left_out():
    items = np.array(["a", "b", "b", "c", "c", "c", "d"])
    one = sampler(items, 9)
    assert one.items_per_batch == 2
    assert set(items[batch(one, 0)[0]]) == {"b", "c"}
    assert set(items[batch(sampler(items, 9, min_pictures=1), 0)[0]]) == {"a", "b", "c", "d"}


def test_a_batch_is_a_function_of_seed_and_step_only():
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


def test_all_pictures_of_an_item_are_shown_in_time():
    one = sampler(np.repeat(np.arange(2), 6), 2, 2)
    shown = {int(position) for step in range(40) for position in batch(one, step)[0]}
    assert shown == set(range(12))


def test_shape_is_known_in_a_graph():
    one = sampler(np.repeat(np.arange(9), 4))
    dataset = tf.data.Dataset.range(4).map(one.batch)
    assert [spec.shape for spec in dataset.element_spec] == [(6,), (6,)]


@pytest.mark.parametrize("items", [[], [1], [1, 1, 1], [1, 1, 2], [1, 2, 3]])
def test_too_few_items_are_refused(items):
    with pytest.raises(UserError, match="triplets need at least 2 such items"):
        sampler(np.array(items, dtype=int))


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 4), st.integers(-5, 100))
def test_epoch_sampler_covers_all_pictures_but_the_remainder(count, size, epoch, seed):
    one = EpochSampler.over(count, batch_size=size, seed=seed)
    steps = range(epoch * one.steps_per_epoch, (epoch + 1) * one.steps_per_epoch)
    seen = np.concatenate([one.batch(tf.constant(step, tf.int64)).numpy() for step in steps])
    assert len(seen) == len(set(seen)) == count - count % min(size, count)
    assert 0 <= seen.min() <= seen.max() < count


def test_epoch_sampler_is_a_function_of_seed_and_step_only():
    def order(seed, step):
        one = EpochSampler.over(50, batch_size=50, seed=seed)
        return tuple(one.batch(tf.constant(step, tf.int64)).numpy())

    assert order(1, 3) == order(1, 3)
    assert len({order(1, 3), order(2, 3), order(1, 4)}) == 3


def test_epoch_sampler_without_pictures_is_refused():
    with pytest.raises(UserError, match="no pictures"):
        EpochSampler.over(0, batch_size=4, seed=0)
