from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation import metrics as metrics_module
from apparel_embed.evaluation import neighbours
from apparel_embed.evaluation.metrics import (
    average_precision_at_r,
    mean_metrics,
    retrieval_metrics,
)


def at_angles(degrees):
    """Returns unit vectors in the plane, which are near if their angles are."""
    radians = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def judge(query_angles, query_items, gallery_angles, gallery_items, ks=(1, 5, 10, 20)):
    return retrieval_metrics(
        at_angles(query_angles),
        np.array(query_items),
        1000 + np.arange(len(query_items)),
        at_angles(gallery_angles),
        np.array(gallery_items),
        np.arange(len(gallery_items)),
        ks,
    )


def test_a_case_computed_by_hand():
    # From near to far, the query finds: wrong, right, wrong, right, right. R is 3.
    found = judge([0], ["a"], [1, 2, 3, 4, 5], ["x", "a", "y", "a", "a"], ks=(1, 2, 3))
    assert {k: values.tolist() for k, values in found.recall.items()} == {1: [0], 2: [1], 3: [1]}
    # Only the second of the first three is right, with a precision of 1/2.
    assert found.average_precision_at_r.tolist() == [pytest.approx(1 / 2 / 3)]


@pytest.mark.parametrize(
    ("right", "expected"),
    [([1], 0.10), ([1, 10], 0.12), ([1, 2], 0.20), (list(range(1, 11)), 1.0)],
)
def test_map_at_r_of_the_toy_example_of_musgrave_et_al(right, expected):
    """Toy example of "A Metric Learning Reality Check": ten images of the item, ten retrieved."""
    hits = np.isin(np.arange(1, 11), right)[None]
    assert average_precision_at_r(hits, np.array([10])) == pytest.approx([expected])


def test_the_whole_path_gives_the_second_case_of_that_example():
    nearest_ten = ["a", *"bcdefghi", "a"]
    items = nearest_ten + ["a"] * 8
    found = judge([0], ["a"], np.arange(1, 19), items)
    assert found.average_precision_at_r.tolist() == [pytest.approx(0.12)]
    assert found.recall[1].tolist() == [1]


def test_perfect_embeddings_score_one_everywhere():
    items = np.repeat(np.arange(6), 4)
    embeddings = np.eye(6, dtype=np.float32)[items]
    records = np.arange(24)
    found = retrieval_metrics(embeddings, items, records, embeddings, items, records)
    assert mean_metrics(found) == {
        "r_at_1": 1, "r_at_5": 1, "r_at_10": 1, "r_at_20": 1, "map_at_r": 1,
    }  # fmt: skip
    assert len(found) == 24 and found.without_answer == 0


def test_random_embeddings_score_at_chance_level():
    random = np.random.default_rng(0)
    items = np.repeat(np.arange(200), 5)
    embeddings = random.normal(size=(1000, 16))
    records = np.arange(1000)
    means = mean_metrics(retrieval_metrics(embeddings, items, records, embeddings, items, records))
    # Four right among 999: 0.4 % at 1, 1 - (995/999)^20 = 7.7 % at 20.
    assert means["r_at_1"] < 0.015
    assert 0.05 < means["r_at_20"] < 0.11


def test_the_own_record_is_neither_found_nor_counted_in_r():
    items = np.array(["a", "a", "b"])
    embeddings = at_angles([0, 10, 1])
    records = np.array([3, 4, 5])
    found = retrieval_metrics(embeddings, items, records, embeddings, items, records, (1, 2))
    # "b" is alone once its own record is out; R of both "a" is 1, and "b" is nearer to them.
    assert found.records.tolist() == [3, 4] and found.without_answer == 1
    assert found.recall[1].tolist() == [0, 0] and found.recall[2].tolist() == [1, 1]
    assert found.average_precision_at_r.tolist() == [0, 0]


def test_queries_without_an_answer_do_not_count():
    found = judge([0, 50, 3], ["a", "nowhere", "b"], [0, 4], ["a", "b"])
    assert found.items.tolist() == ["a", "b"]
    assert found.records.tolist() == [1000, 1002]
    assert found.without_answer == 1
    assert mean_metrics(found)["r_at_1"] == 1


def test_means_without_an_answered_query_are_an_error():
    found = judge([0], ["a"], [0], ["b"])
    assert len(found) == 0 and found.without_answer == 1
    with pytest.raises(UserError, match="no query"):
        mean_metrics(found)
    assert len(judge([0], ["a"], [], [])) == 0


def test_a_gallery_smaller_than_k_is_searched_whole():
    found = judge([0], ["a"], [1, 2, 3], ["b", "c", "a"])
    assert [found.recall[k].tolist() for k in (1, 5, 10, 20)] == [[0], [1], [1], [1]]


def test_a_collapsed_model_gains_nothing_from_ties():
    items = np.arange(40) % 20
    embeddings, records = np.ones((40, 4)), np.arange(40)
    means = mean_metrics(
        retrieval_metrics(embeddings, items, records, embeddings, items, records, (1,))
    )
    # All tie, so query 0 finds position 1, the others 0: only item 0's second image is right.
    assert means["r_at_1"] == 1 / 40


def test_queries_keep_their_order_regardless_of_their_number_of_matches():
    found = judge(
        [0, 90, 180], ["many", "one", "two"], [1, 2, 3, 90, 181, 182],
        ["many"] * 3 + ["one"] + ["two"] * 2,
    )  # fmt: skip
    assert found.items.tolist() == ["many", "one", "two"]
    assert found.average_precision_at_r.tolist() == [1, 1, 1]


@pytest.mark.parametrize(("queries", "neighbours"), [(1, 1 << 22), (7, 40), (4096, 1)])
def test_memory_limits_do_not_change_results(monkeypatch, queries, neighbours):
    random = np.random.default_rng(5)
    items = random.integers(0, 12, 120)
    embeddings, records = random.normal(size=(120, 8)), np.arange(120)
    expected = retrieval_metrics(embeddings, items, records, embeddings, items, records)
    monkeypatch.setattr(metrics_module, "_QUERIES_AT_ONCE", queries)
    monkeypatch.setattr(metrics_module, "_NEIGHBOURS_AT_ONCE", neighbours)
    got = retrieval_metrics(embeddings, items, records, embeddings, items, records)
    np.testing.assert_array_equal(got.records, expected.records)
    np.testing.assert_array_equal(got.average_precision_at_r, expected.average_precision_at_r)
    for k in expected.recall:
        np.testing.assert_array_equal(got.recall[k], expected.recall[k])


def judge_slowly(embeddings, items, records, is_query, is_gallery, ks):
    """Returns metrics by their definitions, query by query: record -> (recalls, mAP@R)."""
    results = {}
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for query in np.flatnonzero(is_query):
        others = [other for other in np.flatnonzero(is_gallery) if other != query]
        others.sort(key=lambda other: np.linalg.norm(unit[query] - unit[other]))
        hits = [items[other] == items[query] for other in others]
        r = sum(hits)
        if r:
            precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(r) if hits[i]]
            results[records[query]] = ([any(hits[:k]) for k in ks], sum(precisions) / r)
    return results


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12))
@settings(derandomize=True, deadline=None, max_examples=80)
def test_agrees_with_the_definitions(seed, images, item_count):
    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(images, 6))
    items = np.array([f"{number:03}" for number in random.integers(0, item_count, images)])
    records = random.permutation(100)[:images]
    is_query, is_gallery = random.random((2, images)) < 0.7
    ks = (1, 3, 50)
    found = retrieval_metrics(
        embeddings[is_query], items[is_query], records[is_query],
        embeddings[is_gallery], items[is_gallery], records[is_gallery], ks,
    )  # fmt: skip
    expected = judge_slowly(embeddings, items, records, is_query, is_gallery, ks)
    assert found.records.tolist() == list(expected)
    assert found.without_answer == is_query.sum() - len(expected)
    for row, (recalls, precision) in enumerate(expected.values()):
        assert [found.recall[k][row] for k in ks] == recalls
        assert found.average_precision_at_r[row] == pytest.approx(precision)


def test_a_subset_of_queries_can_be_selected():
    found = judge([0, 3], ["a", "b"], [1, 2], ["a", "b"])
    part = found.select(found.items == "b")
    assert part.items.tolist() == ["b"] and part.records.tolist() == [1001]
    assert part.recall[1].tolist() == [1] and len(part) == 1


def test_broken_embeddings_are_counted_even_if_the_query_has_no_answer():
    broken = np.array([[1, 0], [np.nan, 0], [np.inf, 1]])
    good = np.eye(2)
    args = (np.array(["a", "x", "x"]), np.arange(3)), (np.array(["a", "b"]), np.array([8, 9]))
    with pytest.raises(UserError, match=r"query embeddings: 2 of 3 .*NaN"):
        retrieval_metrics(broken, *args[0], good, *args[1])
    with pytest.raises(UserError, match=r"gallery embeddings: 1 of 2 .*all zero"):
        retrieval_metrics(np.eye(3)[:, :2] + 1, *args[0], good * [1, 0], *args[1])


@pytest.mark.parametrize("ks", [(), (0, 1)])
def test_an_invalid_k_is_refused(ks):
    with pytest.raises(UserError, match="each 1 or more"):
        judge([0], ["a"], [0], ["a"], ks)


def test_a_duplicate_record_in_the_gallery_is_refused():
    with pytest.raises(UserError, match="record 4 occurs more than once in the gallery"):
        retrieval_metrics(
            np.eye(2), np.array(["a", "b"]), np.array([0, 1]),
            np.eye(2), np.array(["a", "b"]), np.array([4, 4]),
        )  # fmt: skip


def test_items_of_the_wrong_shape_are_refused():
    with pytest.raises(UserError, match=r"gallery: items of shape \(1,\); expected \(2,\)"):
        retrieval_metrics(
            np.eye(2), np.array(["a", "b"]), np.array([0, 1]),
            np.eye(2), np.array(["a"]), np.array([4, 5]),
        )  # fmt: skip


def test_search_results_are_not_kept_in_memory(monkeypatch):
    monkeypatch.setattr(neighbours, "_PAIRS_FOR_THREADS", 1 << 60)
    monkeypatch.setattr(metrics_module, "_QUERIES_AT_ONCE", 512)
    random = np.random.default_rng(8)
    items, records = np.repeat(np.arange(50), 120), np.arange(6000)
    embeddings = random.normal(size=(6000, 4)).astype(np.float32)
    tracemalloc.start()
    retrieval_metrics(embeddings, items, records, embeddings, items, records)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The 119 neighbours of all queries would take 8.6 MB, their products 144 MB.
    assert peak < 30e6
