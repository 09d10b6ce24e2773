from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.errors import UserError
from apparel_embed.retrieval.neighbours import nearest, unit_length


def sort_everything(queries, gallery, k, query_records, gallery_records):
    """Neighbours by a full sort of every query's distances, one query at a time."""
    queries, gallery = unit_length(queries), unit_length(gallery)
    k = min(k, len(gallery))
    positions = np.full((len(queries), k), -1)
    distances = np.full((len(queries), k), np.inf)
    for row, query in enumerate(queries.astype(np.float64)):
        difference = query - gallery
        squared = np.einsum("ij,ij->i", difference, difference)
        found = [
            (squared[position], position)
            for position in range(len(gallery))
            if gallery_records[position] != query_records[row]
        ]
        for rank, (nearness, position) in enumerate(sorted(found)[:k]):
            positions[row, rank] = position
            distances[row, rank] = np.sqrt(nearness)
    return positions, distances


# Quarters from a small range: many equal distances, and all sums are exact before scaling.
QUARTERS = st.integers(-4, 4).map(lambda number: number / 4)


@st.composite
def searches(draw):
    dim = draw(st.integers(1, 5))

    def embeddings(least):
        rows = draw(st.integers(least, 12))
        values = draw(arrays.arrays(np.float32, (rows, dim), elements=QUARTERS))
        values[~values.any(axis=1), 0] = 1
        return values

    queries, gallery = embeddings(1), embeddings(0)
    records = st.integers(0, 9)
    return (
        queries,
        gallery,
        draw(st.integers(1, 15)),
        np.array(draw(st.lists(records, min_size=len(queries), max_size=len(queries))), np.int64),
        np.array(draw(st.lists(records, min_size=len(gallery), max_size=len(gallery))), np.int64),
    )


@given(searches())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_agrees_with_a_full_sort_where_many_distances_nearly_tie(search):
    positions, distances = nearest(*search, query_block=4, gallery_block=5)
    expected_positions, expected_distances = sort_everything(*search)
    assert distances.dtype == np.float32 and positions.dtype == np.int64
    np.testing.assert_array_equal(positions, expected_positions)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 3, 64, 257])
def test_agrees_with_a_full_sort_on_random_embeddings(dim):
    random = np.random.default_rng(dim)
    queries, gallery = random.normal(size=(40, dim)), random.normal(size=(90, dim))
    if dim == 1:
        queries, gallery = np.abs(queries), np.abs(gallery)
    records = np.arange(40), np.arange(20, 110)
    positions, distances = nearest(queries, gallery, 7, *records)
    expected_positions, expected_distances = sort_everything(queries, gallery, 7, *records)
    np.testing.assert_array_equal(positions, expected_positions)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4, 1e-6, 0.0])
@pytest.mark.parametrize("blocks", [(1, 1), (3, 7), (16, 64), (1000, 1000)])
def test_sizes_of_blocks_change_no_bit_even_when_the_model_has_collapsed(blocks, spread):
    random = np.random.default_rng(3)
    embeddings = (1 + spread * random.normal(size=(150, 33))).astype(np.float32)
    embeddings[100:] = embeddings[:50]
    records = np.arange(150)
    expected = nearest(embeddings, embeddings, 9, records, records)
    got = nearest(
        embeddings, embeddings, 9, records, records, query_block=blocks[0], gallery_block=blocks[1]
    )
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[0], sort_by_numpy(embeddings, 9))


def sort_by_numpy(embeddings, k):
    unit = unit_length(embeddings).astype(np.float64)
    difference = unit[:, None] - unit[None]
    squared = np.einsum("ijk,ijk->ij", difference, difference)
    np.fill_diagonal(squared, np.inf)
    return np.argsort(squared, axis=1, kind="stable")[:, :k]


def test_nearly_equal_embeddings_are_told_apart_finer_than_a_float32_product_could():
    # 1 - cosine is 5e-11 and 2e-10 here: both are lost in a float32 cosine, which is 1.
    gallery = np.array([[1, 2e-5], [1, 1e-5]], np.float32)
    query = np.array([[1, 0]], np.float32)
    positions, distances = nearest(query, gallery, 2, np.array([0]), np.array([1, 2]))
    assert positions.tolist() == [[1, 0]]
    np.testing.assert_allclose(distances, [[1e-5, 2e-5]], rtol=1e-5)


def test_distances_are_those_of_unit_vectors():
    query = np.array([[3.0, 0.0]])
    gallery = np.array([[0.0, -2.0], [-9.0, 0.0], [5.0, 0.0], [1.0, 1.0]])
    positions, distances = nearest(query, gallery, 4, np.array([-1]), np.arange(4))
    assert positions.tolist() == [[2, 3, 0, 1]]
    np.testing.assert_allclose(distances, [[0, np.sqrt(2 - np.sqrt(2)), np.sqrt(2), 2]], atol=1e-6)


def test_ties_go_to_the_smaller_position():
    gallery = np.tile(np.array([[0.3, 0.4, 0.5]], np.float32), (50, 1))
    gallery[20] = [1, 0, 0]
    query = np.array([[3.0, 4.0, 5.0]], np.float32)
    positions, _ = nearest(query, gallery, 30, np.array([-1]), np.arange(50), gallery_block=7)
    assert positions[0].tolist() == [position for position in range(31) if position != 20]


def test_a_query_never_finds_its_own_record_but_its_double_under_another_number():
    embeddings = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    positions, _ = nearest(embeddings, embeddings, 3, np.array([5, 6, 7]), np.array([5, 6, 7]))
    assert positions.tolist() == [[1, 2, -1], [0, 2, -1], [0, 1, -1]]


def test_where_neighbours_run_out_the_rest_is_padding():
    one = np.array([[1.0, 0.0]])
    positions, distances = nearest(one, one, 5, np.array([1]), np.array([1]))
    assert positions.tolist() == [[-1]] and distances.tolist() == [[np.inf]]
    positions, distances = nearest(one, np.zeros((0, 2)), 5, np.array([1]), np.array([], np.int64))
    assert positions.shape == distances.shape == (1, 0)


def test_k_larger_than_the_gallery_returns_the_whole_gallery():
    gallery = np.eye(3)
    positions, distances = nearest(gallery[:1], gallery, 99, np.array([-1]), np.arange(3))
    assert positions.tolist() == [[0, 1, 2]] and distances.shape == (1, 3)


def test_lengths_that_overflow_a_square_still_become_one():
    rows = np.array([[3e38, 3e38], [1e-40, 0], [3, 4]], np.float32)
    np.testing.assert_allclose(
        unit_length(rows), [[0.5**0.5, 0.5**0.5], [1, 0], [0.6, 0.8]], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("queries", "gallery", "k", "query_records", "message"),
    [
        ([[1, 0]], [[1, np.nan], [np.inf, 0], [1, 1]], 1, [0], "2 of 3.*NaN.*first in row 0"),
        ([[1, 0]], [[1, 1], [0, 0], [1, 1]], 1, [0], "gallery.* 1 of 3.*all zero.*row 1"),
        ([[0, 0]], [[1, 0]] * 3, 1, [0], "query.* 1 of 1 .*all zero"),
        ([[1, 0]], [[1, 0]] * 3, 0, [0], "k is 0"),
        ([[1, 0, 0]], [[1, 0]] * 3, 1, [0], "last dimension must be the same"),
        ([[1, 0]], [[1, 0]] * 3, 1, [0, 1], "1 embeddings but records of shape"),
        ([1, 0], [1, 0, 0], 1, [0, 1], "allowed is"),
    ],
)
def test_what_cannot_be_compared_is_refused(queries, gallery, k, query_records, message):
    with pytest.raises(UserError, match=message):
        nearest(np.array(queries), np.array(gallery), k, np.array(query_records), np.arange(3))


def test_many_equal_embeddings_still_find_each_other_in_order():
    random = np.random.default_rng(11)
    embeddings = random.normal(size=(3, 5))[random.integers(0, 3, 200)]
    records = np.arange(200)
    records[150:] = records[100:150]
    positions, distances = nearest(embeddings, embeddings, 4, records, records)
    expected = sort_everything(embeddings, embeddings, 4, records, records)
    np.testing.assert_array_equal(positions, expected[0])
    assert (distances == 0).all()


def test_blocks_without_rows_are_refused():
    one = np.ones((1, 2))
    with pytest.raises(UserError, match="both must be at least 1"):
        nearest(one, one, 1, np.array([0]), np.array([1]), gallery_block=0)
