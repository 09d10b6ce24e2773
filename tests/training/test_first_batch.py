import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.data.labelled_sheet import SIDE, draw_labelled_sheet
from apparel_embed.data.sampler import EpochSampler, PKSampler, WeightedSampler
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.training.input import (
    InputConfig,
    augmentation,
    first_images,
    training_batches,
)
from apparel_embed.training.summaries import first_batch_sheet

AUGMENT = InputConfig(AugmentConfig(flip=True, zoom=0.2, brightness=0.2))


@pytest.fixture(scope="module")
def stored(tiny_unlabelled):
    records = np.concatenate(
        [tiny_unlabelled.select(split=split) for split in ("unlabelled", "train")]
    )
    return records, ImageStore(tiny_unlabelled, records, 32, 1.0)


def samplers(dataset, records):
    items = dataset.column("item_id")[records]
    verticals = dataset.column("vertical")[records]
    return [
        PKSampler.from_items(items, items_per_batch=3, images_per_item=3, seed=4),
        EpochSampler.over(len(records), batch_size=9, seed=4),
        WeightedSampler.of_verticals(verticals, weights="equal", batch_size=9, seed=4),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_the_first_images_are_those_of_the_first_step(tiny_unlabelled, stored, kind):
    records, store = stored
    sampler = samplers(tiny_unlabelled, records)[kind]
    augment = augmentation(AUGMENT, tf.distribute.get_strategy())
    numbers = np.arange(len(records), dtype=np.float32)[:, None]
    batches = training_batches(store, sampler, 5, targets=numbers if kind else None)
    inputs, labels = next(iter(batches(0)))

    positions, images, draws = first_images(store, sampler, augment, 100)
    np.testing.assert_array_equal(draws, inputs[1])
    np.testing.assert_array_equal(images, augment(inputs))
    if kind:
        np.testing.assert_array_equal(numbers[positions], labels)
    some_positions, some, _ = first_images(store, sampler, augment, 4)
    np.testing.assert_array_equal(some_positions, positions[:4])
    np.testing.assert_array_equal(some, images[:4])


def test_items_have_their_own_lines_and_unlabelled_images_are_captioned(tiny_unlabelled, stored):
    records, store = stored
    triplets, each, _ = samplers(tiny_unlabelled, records)
    augment = augmentation(AUGMENT, tf.distribute.get_strategy())
    step = SIDE + 6
    for sampler, columns in ((triplets, 6), (each, 8)):
        positions, images, _ = first_images(store, sampler, augment, 64)
        rows = tiny_unlabelled.index.take(records[positions]).to_pylist()
        captions = [(row["item_id"] or "unlabelled", row["vertical"]) for row in rows]
        sheet = first_batch_sheet(tiny_unlabelled, records, store, sampler, augment)
        assert sheet.shape[1] == columns * step + 6
        np.testing.assert_array_equal(sheet, draw_labelled_sheet(images, captions, columns))
        assert "unlabelled" in {item for item, _ in captions}
