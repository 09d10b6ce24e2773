import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.data.augment import AugmentConfig
from apparel_embed.inference.image_store import decoded_batches
from apparel_embed.training.input import InputConfig, triplet_dataset

# Changes nothing in an image.
PLAIN = InputConfig(augment=AugmentConfig(flip=False, zoom=0.0, translation=0.0))


def test_batches_have_p_items_of_the_verticals_with_k_images_each(tiny_prepared):
    batches = list(
        triplet_dataset(
            tiny_prepared,
            image_size=16,
            steps=3,
            verticals=["bags"],
            items_per_batch=3,
            images_per_item=2,
            config=PLAIN,
        )
    )
    assert len(batches) == 3
    records = tiny_prepared.select(split="train", verticals=["bags"])
    items = tiny_prepared.column("item_id")[records]
    (known,) = decoded_batches(tiny_prepared, records, 16, len(records))
    item_of = {image.tobytes(): item for image, item in zip(known.numpy(), items)}
    for images, labels in batches:
        assert images.shape == (6, 16, 16, 3) and images.dtype == tf.float32
        shown = [item_of[image.astype(np.uint8).tobytes()] for image in images.numpy()]
        of_label = dict(zip(labels.numpy().tolist(), shown))
        assert len(of_label) == len(set(shown)) == 3
        assert [of_label[label] for label in labels.numpy()] == shown


def test_the_same_seed_gives_the_same_batches(tiny_prepared):
    def batches(seed):
        made = triplet_dataset(tiny_prepared, image_size=16, steps=2, items_per_batch=4, seed=seed)
        return np.concatenate([images for images, _ in made])

    first = batches(1)
    np.testing.assert_array_equal(first, batches(1))
    assert np.abs(first - batches(2)).max() > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0; expected 1 or more"),
        ({"images_per_item": 1}, "images_per_item is 1; expected 2 or more"),
        ({"verticals": ["hats"]}, "unknown vertical 'hats'"),
        ({"min_images": 5}, "0 of 8 items have 5 images or more"),
    ],
)
def test_arguments_that_give_no_batches_are_refused(tiny_prepared, wrong, message):
    with pytest.raises(UserError, match=message):
        triplet_dataset(tiny_prepared, **{"image_size": 16, "steps": 2, **wrong})
