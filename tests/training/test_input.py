import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.augment import AugmentConfig, Augmenter
from apparel_embed.data.sampler import EpochSampler, PKSampler, WeightedSampler
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.training.input import (
    InputConfig,
    augmentation,
    training_batches,
)
from apparel_embed.training.strategy import BatchShare, make_strategy

SIZE = 16
STEPS = 11
# At 40 pixels the 32 images take 153,600 bytes decoded, and less encoded.
MODES = {"decoded": 1.0, "encoded": 150_000 / 2**30, "read": 0.0}


@pytest.fixture(scope="module")
def records(tiny_prepared):
    return tiny_prepared.select(split="train")


@pytest.fixture(scope="module")
def sampler(tiny_prepared, records):
    # 8 items, 3 per batch: two steps per epoch.
    return PKSampler.from_items(
        tiny_prepared.column("item_id")[records], items_per_batch=3, images_per_item=2, seed=5
    )


def flat(batches, first=0):
    """Returns images, draws and labels of all elements, as numpy."""
    return [
        (images.numpy(), draws.numpy(), labels.numpy())
        for (images, draws), labels in batches(first)
    ]


def assert_same(ours, expected):
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected):
        for part, expected_part in zip(one, other):
            np.testing.assert_array_equal(part, expected_part)


@pytest.fixture(scope="module")
def whole(tiny_prepared, records, sampler):
    return flat(training_batches(ImageStore(tiny_prepared, records, SIZE, 1.0), sampler, STEPS))


def test_each_step_has_the_images_and_labels_of_the_sampler(tiny_prepared, records, sampler, whole):
    store = ImageStore(tiny_prepared, records, SIZE, 1.0)
    assert len(whole) == STEPS
    for step, (images, _, labels) in enumerate(whole):
        positions, expected = sampler.batch(tf.constant(step, tf.int64))
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, store.gather(positions))
        np.testing.assert_array_equal(labels, expected)


def test_random_numbers_of_augmentation_differ_between_images_and_steps(whole):
    draws = np.concatenate([draws for _, draws, _ in whole])
    assert len(np.unique(draws, axis=0)) == len(draws)


@pytest.mark.parametrize("first", [1, 2, 7])
def test_a_resumed_training_gets_the_same_batches(tiny_prepared, records, sampler, whole, first):
    batches = training_batches(ImageStore(tiny_prepared, records, SIZE, 1.0), sampler, STEPS)
    assert_same(flat(batches, first), whole[first:])


def test_images_do_not_depend_on_how_they_are_cached(tiny_prepared, records, sampler):
    found = {}
    for mode, cache_gib in MODES.items():
        store = ImageStore(tiny_prepared, records, 40, cache_gib)
        kept = store.read(tf.constant([0], tf.int64))
        assert kept.dtype == (tf.uint8 if mode == "decoded" else tf.string)
        found[mode] = flat(training_batches(store, sampler, 4))
    assert_same(found["encoded"], found["decoded"])
    assert_same(found["read"], found["decoded"])


@pytest.mark.parametrize("mode", MODES)
def test_images_are_read_again_only_if_they_do_not_fit_into_memory(
    tiny_prepared, records, sampler, mode, monkeypatch
):
    batches = training_batches(ImageStore(tiny_prepared, records, 40, MODES[mode]), sampler, 4)
    calls = []
    read = type(tiny_prepared).read_images
    monkeypatch.setattr(
        type(tiny_prepared),
        "read_images",
        lambda self, records: calls.append(len(records)) or read(self, records),
    )
    flat(batches)
    # One read per batch, not per image.
    assert calls == ([6] * 4 if mode == "read" else [])


@pytest.mark.parametrize(("processes", "replicas"), [(1, 2), (2, 1), (2, 2), (1, 4), (3, 1)])
def test_the_parts_of_replicas_make_up_the_batch_without_overlap(
    tiny_prepared, records, sampler, whole, processes, replicas
):
    store = ImageStore(tiny_prepared, records, SIZE, 1.0)
    total = processes * replicas
    own = [
        flat(training_batches(store, sampler, 3, BatchShare(process * replicas, replicas, total)))
        for process in range(processes)
    ]
    for step in range(3):
        parts = [part for found in own for part in found[step * replicas : (step + 1) * replicas]]
        sizes = [len(labels) for _, _, labels in parts]
        assert max(sizes) - min(sizes) <= 1
        joined = [np.concatenate(some) for some in zip(*parts)]
        assert_same([joined], [whole[step]])


def test_a_batch_smaller_than_the_number_of_replicas_is_refused(tiny_prepared, records, sampler):
    store = ImageStore(tiny_prepared, records, SIZE, 1.0)
    with pytest.raises(UserError, match="a batch of 6 images cannot be divided between 7"):
        training_batches(store, sampler, 3, BatchShare(0, 7, 7))


@pytest.mark.parametrize("kind", ["epochs", "weighted"])
def test_targets_match_their_images(tiny_prepared, records, kind):
    store = ImageStore(tiny_prepared, records, SIZE, 1.0)
    targets = np.arange(2 * len(records), dtype=np.float32).reshape(-1, 2)
    if kind == "epochs":
        sampler = EpochSampler.over(len(records), batch_size=12, seed=1)
    else:
        verticals = tiny_prepared.column("vertical")[records].astype(str)
        sampler = WeightedSampler.of_verticals(verticals, weights="equal", batch_size=12, seed=1)
    found = flat(training_batches(store, sampler, 5, targets=targets))
    for step, (images, _, values) in enumerate(found):
        positions = sampler.batch(tf.constant(step, tf.int64))
        np.testing.assert_array_equal(values, targets[positions])
        np.testing.assert_array_equal(images, store.gather(positions))


def test_augmentation_does_not_depend_on_the_part_of_the_batch(whole):
    (images, draws, _) = whole[0]
    config = InputConfig(AugmentConfig(rotation=10.0, brightness=0.2, contrast=0.2, erase=0.3))
    augment = augmentation(config, make_strategy("one"))
    together = augment((tf.constant(images), tf.constant(draws))).numpy()
    assert together.dtype == np.float32
    for start in (0, 3):
        part = slice(start, start + 3)
        apart = augment((tf.constant(images[part]), tf.constant(draws[part])))
        np.testing.assert_allclose(apart, together[part], atol=1e-3)
    assert np.abs(together - images).max() > 10


def test_draws_do_not_depend_on_the_enabled_augmentations():
    seed = tf.constant([1, 2])
    images = tf.random.stateless_uniform([4, 8, 8, 3], seed, 0, 255)
    draws = Augmenter.draw(seed, 4)
    plain = Augmenter(AugmentConfig()).apply(images, draws)
    brighter = Augmenter(AugmentConfig(brightness=0.01)).apply(images, draws)
    assert np.abs(brighter - plain).max() <= 0.01 * 255 + 1e-3
