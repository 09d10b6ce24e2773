from __future__ import annotations

import tracemalloc

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation import neighbours
from apparel_embed.evaluation.neighbours import NearestSearch, nearest, unit_length


def nearest_in_blocks(queries, gallery, k, query_records, gallery_records, blocks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_QUERY_BLOCK", blocks[0])
        patch.setattr(neighbours, "_GALLERY_BLOCK", blocks[1])
        return nearest(queries, gallery, k, query_records, gallery_records)


def sort_everything(queries, gallery, k, query_records, gallery_records):
    """Finds neighbours with a full sort of every query's distances, one query at a time."""
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


# Quarters from a small range give many equal distances, and exact sums before scaling.
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
def test_agrees_with_a_full_sort_if_many_distances_nearly_tie(search):
    positions, distances = nearest_in_blocks(*search, (4, 5))
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
def test_block_sizes_change_no_bit_even_if_the_model_has_collapsed(blocks, spread):
    random = np.random.default_rng(3)
    embeddings = (1 + spread * random.normal(size=(150, 33))).astype(np.float32)
    embeddings[100:] = embeddings[:50]
    records = np.arange(150)
    expected = nearest(embeddings, embeddings, 9, records, records)
    got = nearest_in_blocks(embeddings, embeddings, 9, records, records, blocks)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[0], sort_by_numpy(embeddings, 9))


def sort_by_numpy(embeddings, k):
    unit = unit_length(embeddings).astype(np.float64)
    difference = unit[:, None] - unit[None]
    squared = np.einsum("ijk,ijk->ij", difference, difference)
    np.fill_diagonal(squared, np.inf)
    return np.argsort(squared, axis=1, kind="stable")[:, :k]


def test_nearly_equal_embeddings_are_ordered_beyond_the_precision_of_a_float32_product():
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
    positions, _ = nearest_in_blocks(query, gallery, 30, np.array([-1]), np.arange(50), (1, 7))
    assert positions[0].tolist() == [position for position in range(31) if position != 20]


def test_a_query_never_finds_its_own_record_but_finds_a_duplicate_with_another_number():
    embeddings = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    positions, _ = nearest(embeddings, embeddings, 3, np.array([5, 6, 7]), np.array([5, 6, 7]))
    assert positions.tolist() == [[1, 2, -1], [0, 2, -1], [0, 1, -1]]


def test_missing_neighbours_are_padded():
    one = np.array([[1.0, 0.0]])
    positions, distances = nearest(one, one, 5, np.array([1]), np.array([1]))
    assert positions.tolist() == [[-1]] and distances.tolist() == [[np.inf]]
    positions, distances = nearest(one, np.zeros((0, 2)), 5, np.array([1]), np.array([], np.int64))
    assert positions.shape == distances.shape == (1, 0)


def test_k_larger_than_the_gallery_returns_the_whole_gallery():
    gallery = np.eye(3)
    positions, distances = nearest(gallery[:1], gallery, 99, np.array([-1]), np.arange(3))
    assert positions.tolist() == [[0, 1, 2]] and distances.shape == (1, 3)


def test_lengths_whose_squares_overflow_are_normalised():
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
        ([[1, 0, 0]], [[1, 0]] * 3, 1, [0], "expected the same last dimension"),
        ([[1, 0]], [[1, 0]] * 3, 1, [0, 1], "1 embeddings but records of shape"),
        ([1, 0], [1, 0, 0], 1, [0, 1], "expected"),
    ],
)
def test_incomparable_embeddings_are_refused(queries, gallery, k, query_records, message):
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


def clustered(seed, count, dim, clusters, spread):
    """Returns embeddings in clusters and record numbers, both with some duplicates."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, dim))
    embeddings = centres[random.integers(0, clusters, count)]
    embeddings = (embeddings + spread * random.normal(size=(count, dim))).astype(np.float32)
    embeddings[count // 2 : count // 2 + count // 8] = embeddings[: count // 8]
    return embeddings, random.integers(0, count, count)


@pytest.mark.parametrize("order", ["random", "from far to near", "from near to far"])
def test_threads_and_the_order_of_the_gallery_do_not_affect_results(monkeypatch, order):
    embeddings, records = clustered(3, 400, 16, 20, 0.3)
    if order != "random":
        away = np.argsort(
            np.linalg.norm(unit_length(embeddings) - unit_length(embeddings[:1]), axis=1)
        )
        embeddings = embeddings[away if order == "from near to far" else away[::-1]]
    expected = sort_everything(embeddings[:50], embeddings, 6, records[:50], records)
    for least in (0, 1 << 60):
        monkeypatch.setattr(neighbours, "_PAIRS_FOR_THREADS", least)
        got = nearest_in_blocks(embeddings[:50], embeddings, 6, records[:50], records, (7, 64))
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_allclose(got[1], expected[1], atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 80), st.integers(1, 90))
@settings(derandomize=True, deadline=None, max_examples=60)
def test_agrees_with_a_full_sort_for_any_blocks_duplicates_and_own_records(seed, q, g, k):
    random = np.random.default_rng(seed)
    gallery, gallery_records = clustered(seed, g, 3, 1 + g // 4, random.choice([1.0, 1e-5, 0.0]))
    queries, query_records = clustered(seed, q, 3, 1 + g // 4, 0.0)
    blocks = random.integers(1, 40, 2)
    got = nearest_in_blocks(queries, gallery, k, query_records, gallery_records, blocks)
    expected = sort_everything(queries, gallery, k, query_records, gallery_records)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_allclose(got[1], expected[1], atol=1e-6)


def test_a_prepared_gallery_can_be_searched_with_any_k():
    # Most embeddings are equal, and k determines how many of them a search needs.
    embeddings, records = clustered(4, 90, 4, 3, 0.0)
    search = NearestSearch(embeddings, records)
    for k in (1, 30, 5, 200, 1):
        expected = sort_everything(embeddings[:20], embeddings, k, records[:20], records)
        got = search.nearest(embeddings[:20], k, records[:20])
        np.testing.assert_array_equal(got[0], expected[0])


def test_memory_does_not_grow_with_the_number_of_pairs(monkeypatch):
    # Several threads would each have their own block.
    monkeypatch.setattr(neighbours, "_PAIRS_FOR_THREADS", 1 << 60)
    random = np.random.default_rng(6)
    embeddings, records = random.normal(size=(8000, 8)).astype(np.float32), np.arange(8000)
    tracemalloc.start()
    nearest(embeddings[:2000], embeddings, 20, records[:2000], records)
    _, few = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    nearest(embeddings, embeddings, 20, records, records)
    _, many = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The results of 6,000 more queries take 6000 * 20 * 12 bytes; their pairs would take 192 MB.
    assert many - few < 10e6
    assert many < 64e6
