import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import (
    EmbeddingConfig,
    ImageStore,
    decoded_batches,
    embed_by,
)
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.models.preprocessing import decode_to_square

SIZE = 24
RECORDS = np.array([9, 0, 41, 9, 63, 17, 2])


@pytest.fixture(scope="module")
def squares(tiny_prepared):
    """The expected images of RECORDS, decoded one by one."""
    return np.stack(
        [decode_to_square(one, SIZE).numpy() for one in tiny_prepared.read_images(RECORDS)]
    )


@pytest.fixture(scope="module")
def embedder():
    return Embedder(build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=8)))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_are_in_the_order_of_the_records(tiny_prepared, squares, batch_size):
    batches = list(decoded_batches(tiny_prepared, RECORDS, SIZE, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    np.testing.assert_array_equal(np.concatenate(batches), squares)


def test_a_store_reports_the_memory_of_its_images(tiny_prepared):
    decoded = len(RECORDS) * 100**2 * 3 / 2**30
    assert ImageStore(tiny_prepared, RECORDS, 100, 1.0).gib == decoded
    # Encoded images.
    assert 0 < ImageStore(tiny_prepared, RECORDS, 100, decoded / 2).gib < decoded / 2
    assert ImageStore(tiny_prepared, RECORDS, 100, 0).gib == 0


@pytest.mark.parametrize("cache_gib", [1.0, 0])
def test_a_store_returns_the_images_at_positions(tiny_prepared, squares, cache_gib):
    store = ImageStore(tiny_prepared, RECORDS, SIZE, cache_gib)
    assert len(store) == len(RECORDS)
    positions = np.array([6, 0, 3, 3, 1])
    images = store.gather(tf.constant(positions, tf.int64))
    assert images.dtype == tf.uint8
    np.testing.assert_array_equal(images, squares[positions])


@pytest.mark.parametrize("cache_gib", [1.0, 0])
def test_a_store_works_inside_a_pipeline_with_known_shapes(tiny_prepared, squares, cache_gib):
    store = ImageStore(tiny_prepared, RECORDS, SIZE, cache_gib)
    positions = tf.data.Dataset.from_tensor_slices(tf.constant([[0, 1], [5, 6]], tf.int64))
    dataset = positions.map(store.gather, num_parallel_calls=2)
    assert dataset.element_spec.shape == (2, SIZE, SIZE, 3)
    first, second = dataset
    np.testing.assert_array_equal(first, squares[[0, 1]])
    np.testing.assert_array_equal(second, squares[[5, 6]])


def test_only_a_store_that_fits_into_its_memory_is_cached(tiny_prepared, monkeypatch):
    calls = []
    read = type(tiny_prepared).read_images
    monkeypatch.setattr(
        type(tiny_prepared),
        "read_images",
        lambda self, records: calls.append(len(records)) or read(self, records),
    )
    needed = len(RECORDS) * SIZE * SIZE * 3 / 2**30
    fits = ImageStore(tiny_prepared, RECORDS, SIZE, needed)
    assert calls == [len(RECORDS)]
    fits.gather(tf.constant([0], tf.int64))
    assert calls == [len(RECORDS)]
    too_large = ImageStore(tiny_prepared, RECORDS, SIZE, needed * 0.99)
    assert calls == [len(RECORDS)]
    too_large.gather(tf.constant([0, 4], tf.int64))
    assert calls == [len(RECORDS), 2]


def test_a_store_without_records_is_empty(tiny_prepared):
    store = ImageStore(tiny_prepared, np.zeros([0], np.int64), SIZE, 1.0)
    assert len(store) == 0
    assert store.gather(tf.zeros([0], tf.int64)).shape == (0, SIZE, SIZE, 3)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_embeddings_do_not_depend_on_the_batch_size(tiny_prepared, squares, embedder, batch_size):
    try:
        embed_by(EmbeddingConfig(batch_size))
        batches = decoded_batches(tiny_prepared, RECORDS, SIZE)
        assert len(batches) == -(-len(RECORDS) // batch_size)
        embeddings = embedder.records(tiny_prepared, RECORDS)
    finally:
        embed_by(EmbeddingConfig())
    assert embeddings.shape == (len(RECORDS), 8)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, embedder([tf.constant(squares)]), atol=1e-6)
    np.testing.assert_allclose(embeddings[0], embeddings[3], atol=1e-6)


def test_embeddings_are_those_of_the_model_in_inference_mode(squares):
    model = build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=8))
    model(squares.astype(np.float32), training=True)
    expected = model(squares.astype(np.float32), training=False)
    np.testing.assert_allclose(Embedder(model)([tf.constant(squares)]), expected, atol=1e-6)


def test_weights_loaded_later_are_used(squares):
    model = build_embedding_model(ModelConfig(image_size=SIZE, embedding_dim=8))
    embed = Embedder(model)
    before = embed([tf.constant(squares)])
    model.set_weights([weight + 0.1 for weight in model.get_weights()])
    after = embed([tf.constant(squares)])
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(squares.astype(np.float32)), atol=1e-6)


def test_empty_input_gives_no_embeddings(tiny_prepared, embedder):
    for empty in (embedder([]), embedder.records(tiny_prepared, np.zeros([0], np.int64))):
        assert empty.shape == (0, 8)
        assert empty.dtype == np.float32
