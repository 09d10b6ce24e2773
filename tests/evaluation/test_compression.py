import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.compression import make_compressor

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.normal(size=(400, 12)).astype(np.float32)
TRAIN /= np.linalg.norm(TRAIN, axis=1, keepdims=True)
VECTORS = arrays(np.float32, (5, 12), elements=st.floats(-1, 1, width=32))


def make(kind, train=TRAIN, pq_bytes=4):
    return make_compressor(kind, train, pq_bytes=pq_bytes)


@pytest.mark.parametrize(
    ("kind", "size"), [("float16", 24), ("int8", 12), ("pq", 4), ("binary", 2)]
)
def test_codes_have_the_reported_size(kind, size):
    compressor = make(kind)
    codes = compressor.encode(TRAIN[:7])

    assert compressor.bytes_per_image == size
    assert codes.nbytes == 7 * size
    seen = compressor.decode(codes)
    assert (seen.dtype, seen.shape) == (np.float32, (7, 12))


@given(VECTORS)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_error_of_float16_is_at_most_its_last_place(vectors):
    compressor = make("float16")
    seen = compressor.decode(compressor.encode(vectors))

    np.testing.assert_allclose(seen, vectors, rtol=2**-11, atol=2**-24)


@given(VECTORS)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_the_error_of_int8_is_at_most_half_a_step_within_the_training_range(vectors):
    compressor = make("int8")
    reach = np.abs(TRAIN).max(axis=0)
    inside = np.clip(vectors, -reach, reach)
    seen = compressor.decode(compressor.encode(vectors))

    assert (np.abs(seen - inside) <= reach / 254 + 1e-6).all()


def test_binary_distances_are_hamming_distances():
    compressor = make("binary", TRAIN - TRAIN.mean(axis=0))
    bits = RANDOM.integers(0, 2, (6, 12))
    seen = compressor.decode(compressor.encode(bits * 2.0 - 1))

    hamming = (bits[:, None] != bits[None]).sum(axis=2)
    np.testing.assert_allclose(((seen[:, None] - seen[None]) ** 2).sum(axis=2), 4 * hamming)
    assert compressor.queries_too


def test_pq_stores_the_nearest_codeword_of_each_part_but_does_not_encode_queries():
    compressor = make("pq")
    seen = compressor.decode(compressor.encode(TRAIN))
    every = compressor.decode(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1))

    for part in range(4):
        columns = slice(3 * part, 3 * part + 3)
        distances = np.linalg.norm(TRAIN[:, None, columns] - every[None, :, columns], axis=2)
        found = np.linalg.norm(TRAIN[:, columns] - seen[:, columns], axis=1)
        np.testing.assert_allclose(found, distances.min(axis=1), atol=1e-6)
    assert not compressor.queries_too
    again = make("pq")
    np.testing.assert_array_equal(again.encode(TRAIN), compressor.encode(TRAIN))


@pytest.mark.parametrize(
    ("kind", "train", "pq_bytes", "message"),
    [
        ("int4", TRAIN, 4, "expected one of float16, int8, pq, binary"),
        ("pq", TRAIN, 5, "pq_bytes is 5; expected a divisor of the embedding's 12 dimensions"),
        ("pq", TRAIN[:255], 4, "at least 256 training embeddings, one per codeword; got 255"),
    ],
)
def test_invalid_settings_give_errors_with_the_expected_values(kind, train, pq_bytes, message):
    with pytest.raises(UserError, match=message):
        make(kind, train, pq_bytes)
