import numpy as np
import pytest

from apparel_embed.evaluation.items import item_metrics, mean_vectors, measure_items
from apparel_embed.evaluation.split import EvaluationSet


def unit(*angles):
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def by_item(queries, items, records, gallery, gallery_items, gallery_records):
    arrays = map(np.array, (items, records, gallery_items, gallery_records))
    items, records, gallery_items, gallery_records = arrays
    arguments = unit(*queries), items, records, unit(*gallery), gallery_items, gallery_records
    return item_metrics(*arguments, (1, 2))


def test_an_item_is_found_by_the_mean_of_its_images():
    # The nearest image is of b, at 20; the nearest mean is of a, at 15; b's is at 45.
    gallery, items = (5, 25, 20, 70), ["a", "a", "b", "b"]
    found = by_item([18], ["a"], [9], gallery, items, [0, 1, 2, 3])
    assert found.recall[1].tolist() == [1.0] and found.chance.tolist() == [0.5]
    # As a query for b, it finds b second.
    found = by_item([18], ["b"], [9], gallery, items, [0, 1, 2, 3])
    assert (found.recall[1].tolist(), found.recall[2].tolist()) == ([0.0], [1.0])


def test_a_query_is_removed_from_the_mean_of_its_own_item():
    # Including the query, a's mean is at 20, nearer than b at -30; without it, at 40, farther.
    gallery, items = (0, 40, -30), ["a", "a", "b"]
    found = by_item([0, 40, -30, 3], ["a", "a", "b", "c"], [0, 1, 2, 7], gallery, items, [0, 1, 2])
    assert found.records.tolist() == [0, 1]  # b has no other image, and c none at all.
    assert found.recall[1].tolist() == [0.0, 1.0]
    assert found.without_answer == 2


def test_a_collapsed_model_finds_nothing():
    found = by_item([5], ["a"], [9], (5, 5, 5), ["a", "b", "c"], [0, 1, 2])
    assert found.recall[1].tolist() == found.recall[2].tolist() == [0.0]
    assert found.average_precision_at_r.tolist() == [0.0]


def test_images_that_cancel_out_are_replaced_by_the_first():
    means = mean_vectors(unit(0, 180, 90, 0, 90), np.array([0, 0, 1, 2, 2]))
    np.testing.assert_allclose(means, unit(0, 90, 45), atol=1e-6)


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_result_has_both_kinds_of_index_both_scopes_and_their_differences(shuffled):
    random = np.random.default_rng(0)
    items = np.repeat(np.arange(40), 4)
    centres = random.normal(size=(40, 6))[items]
    order = random.permutation(160) if shuffled else np.arange(160)
    images = EvaluationSet(
        records=np.arange(160),
        items=items.astype(str)[order],
        verticals=np.where(items % 2, "bag", "hat")[order],
        is_query=np.arange(160) % 4 == 0,
        is_gallery=np.arange(160) % 4 != 0,
    )
    embeddings = (centres + 0.7 * random.normal(size=centres.shape))[order]
    found = measure_items(embeddings, images, seed=0)
    shown = [(row["scope"], row["index_by"]) for row in found["rows"]]
    assert shown == [(scope, by) for scope in ("within", "merged") for by in ("image", "item")]
    assert {row["vectors"] for row in found["rows"] if row["index_by"] == "image"} == {120}
    assert all(row["r_at_1"] > row["chance"] for row in found["rows"])
    recall = {(row["scope"], row["index_by"]): row["r_at_1"] for row in found["rows"]}
    for one in found["differences"]:
        assert one["low"] <= one["difference"] <= one["high"]
        expected = recall[one["scope"], "item"] - recall[one["scope"], "image"]
        assert one["difference"] == pytest.approx(expected)
