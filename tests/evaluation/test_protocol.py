from __future__ import annotations

import json

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.protocol import (
    SCOPES,
    Difference,
    EvaluationSet,
    answered_queries,
    compare_models,
    evaluate_model,
    query_outcomes,
)

FIELDS = [
    "model", "scope", "vertical", "in_all", "queries", "gallery", "r_at_1", "r_at_1_low",
    "r_at_1_high", "r_at_5", "r_at_10", "r_at_20", "map_at_r", "r_at_1_pooled", "items", "chance",
    "parameters", "models_to_deploy",
]  # fmt: skip


def make_set(rows):
    """Returns an evaluation set of rows (item, vertical, role), with records 10, 11, 12 ..."""
    items, verticals, roles = (np.array(column) for column in zip(*rows))
    return EvaluationSet(
        records=10 + np.arange(len(rows)),
        items=items,
        verticals=verticals,
        is_query=roles != "gallery",
        is_gallery=roles != "query",
    )


def at_angles(degrees):
    radians = np.deg2rad(np.asarray(degrees, float))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def by_key(rows):
    return {(row["scope"], row["vertical"]): row for row in rows}


# Two bags whose queries are right, and two tops, one of which is wrong within its vertical. A bag
# is between the tops, so in the merged gallery the other one is wrong too. Hats have no answer.
SMALL = make_set(
    [
        ("b1", "bags", "query"), ("b1", "bags", "gallery"),
        ("b2", "bags", "query"), ("b2", "bags", "gallery"),
        ("t1", "tops", "query"), ("t1", "tops", "gallery"),
        ("t2", "tops", "query"), ("t2", "tops", "gallery"),
        ("h1", "hats", "query"), ("h2", "hats", "gallery"),
        ("b3", "bags", "gallery"),
    ]
)  # fmt: skip
ANGLES = at_angles([0, 1, 20, 21, 60, 64, 67, 75, 100, 101, 62])


def evaluate(embeddings=ANGLES, images=SMALL, scopes=SCOPES, **options):
    options = {"parameters": 1000, "models_to_deploy": 1, **options}
    outcomes = [query_outcomes(embeddings, images, scope) for scope in scopes]
    return evaluate_model("unified", outcomes, **options)


def test_rows_have_the_fields_of_the_summary_in_order_and_survive_json():
    rows = evaluate()
    assert all(list(row) == FIELDS for row in rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {row["model"] for row in rows} == {"unified"}
    assert {(row["parameters"], row["models_to_deploy"]) for row in rows} == {(1000, 1)}


def test_each_scope_lists_every_vertical_followed_by_all():
    assert [(row["scope"], row["vertical"]) for row in evaluate()] == [
        (scope, vertical)
        for scope in ("within", "merged")
        for vertical in ("bags", "hats", "tops", "ALL")
    ]


def test_figures_computed_by_hand():
    rows = by_key(evaluate())
    # Within tops, query t1 at 60 finds t1 at 64 first; t2 at 67 finds 64 (t1) before 75 (t2).
    assert rows["within", "bags"]["r_at_1"] == 1.0
    assert rows["within", "tops"]["r_at_1"] == 0.5
    assert rows["within", "tops"]["r_at_5"] == 1.0
    assert rows["within", "tops"]["map_at_r"] == 0.5
    assert rows["within", "ALL"]["r_at_1"] == 0.75
    # Merged, b3 at 62 comes before t1 at 64 for the query at 60.
    assert rows["merged", "bags"]["r_at_1"] == 1.0
    assert rows["merged", "tops"]["r_at_1"] == 0.0
    assert rows["merged", "tops"]["r_at_5"] == 1.0
    assert rows["merged", "ALL"]["r_at_1"] == 0.5


def test_queries_and_gallery_are_counted():
    rows = by_key(evaluate())
    counts = {key: (row["queries"], row["gallery"]) for key, row in rows.items()}
    assert counts == {
        ("within", "bags"): (2, 3), ("within", "hats"): (0, 1), ("within", "tops"): (2, 2),
        ("within", "ALL"): (4, 5),
        ("merged", "bags"): (2, 6), ("merged", "hats"): (0, 6), ("merged", "tops"): (2, 6),
        ("merged", "ALL"): (4, 6),
    }  # fmt: skip


def test_a_vertical_without_an_answer_has_no_figures_and_does_not_lower_the_mean():
    row = by_key(evaluate())["within", "hats"]
    measured = [name for name in FIELDS if name.startswith("r_at") or name == "map_at_r"]
    assert len(measured) == 8
    assert [row[name] for name in (*measured, "chance")] == [None] * 9
    assert row["items"] == 0
    assert by_key(evaluate())["within", "ALL"]["r_at_5"] == 1.0


def test_intervals_contain_the_mean_and_resample_within_verticals():
    rows = by_key(evaluate())
    ends = {
        name: (rows["within", name]["r_at_1_low"], rows["within", name]["r_at_1_high"])
        for name in ("bags", "tops", "ALL")
    }
    # Both bags are found, so at least 0.16 of unseen ones are (Clopper and Pearson).
    assert ends["bags"] == (pytest.approx(0.16, abs=0.03), 1)
    assert ends["tops"] == (0, 1)
    # No top is found in a quarter of the resamples, so the mean is half of that of bags there.
    assert 0.08 < ends["ALL"][0] < 0.28 and ends["ALL"][1] > 0.95


@pytest.mark.parametrize("seed", range(20))
def test_counts_of_answered_queries_agree_with_a_search(seed):
    random = np.random.default_rng(seed)
    roles = random.choice(["query", "gallery", "both"], 30)
    # The same item id in two verticals stands for two garments.
    rows = [(f"i{random.integers(8)}", "abc"[random.integers(3)], role) for role in roles]
    images = make_set(rows)
    found = query_outcomes(random.normal(size=(30, 3)), images).verticals
    assert answered_queries(images) == {name: len(one) for name, one in found.items()}


def test_no_query_with_an_answer_gives_no_counts():
    assert answered_queries(make_set([("a", "x", "both"), ("a", "y", "both")])) == {}


def test_verticals_with_few_items_do_not_count_in_all():
    rows = [(f"big{n // 2}", "big", "both") for n in range(12)]
    rows += [("one", "small", "both")] * 2
    # Three of the six big items are found; the only item of small cannot be missed.
    angles = [0, 1, 20, 21, 40, 41, 80, 110, 81, 111, 82, 112, 0, 5]
    found = by_key(evaluate(at_angles(angles), make_set(rows)))
    assert [found["within", name]["in_all"] for name in ("big", "small", "ALL")] == [1, 0, 1]
    assert (found["within", "small"]["r_at_1"], found["within", "small"]["chance"]) == (1, 1)
    for name in ("r_at_1", "r_at_1_low", "r_at_1_high", "queries", "gallery", "items", "chance"):
        assert found["within", "ALL"][name] == found["within", "big"][name]
    assert found["within", "ALL"]["r_at_1"] == 0.5


def test_all_verticals_count_if_none_has_enough_items():
    assert all(row["in_all"] for row in evaluate() if row["queries"])


def test_the_overall_difference_leaves_out_verticals_with_few_items():
    rows = [(f"big{n // 2}", "big", "both") for n in range(12)] + [("one", "small", "both")] * 2
    images = make_set([*rows, ("two", "small", "both"), ("two", "small", "both")])
    near = at_angles([0, 1, 20, 21, 40, 41, 80, 81, 120, 121, 160, 161, 0, 1, 90, 91])
    far = at_angles([0, 1, 20, 21, 40, 41, 80, 81, 120, 121, 160, 161, 0, 90, 1, 91])
    found = compare_models(query_outcomes(near, images), query_outcomes(far, images))
    assert (found["ALL"].difference, found["ALL"].queries) == (0, 12)
    assert found["small"].difference == 1 and not found["small"].is_clear


def test_chance_is_that_of_a_random_gallery_image_and_items_are_those_of_answered_queries():
    rows = by_key(evaluate())
    # One of three bags, one of two tops, one of six images.
    chances = {
        ("within", "bags"): 1 / 3, ("within", "tops"): 1 / 2, ("within", "ALL"): 5 / 12,
        ("merged", "bags"): 1 / 6, ("merged", "tops"): 1 / 6, ("merged", "ALL"): 1 / 6,
    }  # fmt: skip
    for key, chance in chances.items():
        assert rows[key]["chance"] == pytest.approx(chance)
        assert rows[key]["items"] == (4 if key[1] == "ALL" else 2)
    # An image that is query and gallery does not find itself, so 2 of the other 5 are right.
    both = make_set([(item, "bags", "both") for item in "xxxyyy"])
    row = by_key(evaluate(at_angles([0, 1, 2, 50, 51, 52]), both))["within", "bags"]
    assert row["chance"] == pytest.approx(2 / 5)


def test_a_subset_keeps_the_order_and_roles_of_its_images():
    bags = SMALL.only(SMALL.verticals == "bags")
    assert bags.records.tolist() == [10, 11, 12, 13, 20]
    assert list(bags.by_vertical()) == ["bags"]
    assert bags.is_query.tolist() == [True, False, True, False, False]
    assert bags.is_gallery.tolist() == [False, True, False, True, True]
    found = query_outcomes(ANGLES[SMALL.verticals == "bags"], bags).verticals["bags"]
    expected = query_outcomes(ANGLES, SMALL).verticals["bags"]
    np.testing.assert_array_equal(found.records, expected.records)
    np.testing.assert_array_equal(found.recall[1], expected.recall[1])


def test_verticals_have_equal_weight_in_all():
    rows = [("x", "big", "both")] * 9 + [("y", "big", "both")] * 9
    rows += [("p", "small", "query"), ("p", "small", "gallery"), ("q", "small", "gallery")]
    embeddings = np.concatenate([at_angles([0] * 9 + [90] * 9), at_angles([0, 90, 1])])
    row = by_key(evaluate(embeddings, make_set(rows), scopes=("within",)))["within", "ALL"]
    assert row["r_at_1"] == 0.5 and row["queries"] == 19
    # All queries except that of small find their item.
    assert row["r_at_1_pooled"] == pytest.approx(18 / 19)


def test_spaces_of_verticals_may_overlap_in_scope_within():
    rows = [(f"{vertical}{item}", vertical, "both") for vertical in "abc" for item in "12" * 2]
    embeddings = np.tile(np.eye(2), (6, 1))
    result = by_key(evaluate(embeddings, make_set(rows)))
    assert result["within", "ALL"]["r_at_1"] == 1.0
    assert result["merged", "ALL"]["r_at_1"] < 1.0


def test_the_same_seed_gives_the_same_rows_in_any_order_of_images():
    random = np.random.default_rng(0)
    size = 200
    images = [(f"i{n % 50}", "ab"[n % 2], "both") for n in range(size)]
    embeddings = (
        random.normal(size=(size, 4)) + 2 * random.normal(size=(50, 4))[np.arange(size) % 50]
    )
    first = make_set(images)
    order = random.permutation(size)
    shuffled = EvaluationSet(
        first.records[order], first.items[order], first.verticals[order],
        first.is_query[order], first.is_gallery[order],
    )  # fmt: skip
    rows, again = evaluate(embeddings, first, seed=3), evaluate(embeddings[order], shuffled, seed=3)
    for row, other in zip(rows, again):
        assert row == {**other, "map_at_r": pytest.approx(other["map_at_r"])}
    assert evaluate(embeddings, first, seed=4) != rows


def test_a_model_does_not_differ_from_itself():
    outcomes = query_outcomes(ANGLES, SMALL)
    differences = compare_models(outcomes, query_outcomes(ANGLES, SMALL))
    assert list(differences) == ["ALL", "bags", "tops"]
    assert differences["ALL"] == Difference("ALL", 4, 0.0, 0.0, 0.0)
    assert not differences["ALL"].is_clear


def test_a_better_model_is_clearly_better_than_a_worse_one():
    random = np.random.default_rng(1)
    count = 300
    images = make_set([(f"i{n % 100}", "ab"[n % 2], "both") for n in range(count)])
    centres = random.normal(size=(100, 8))[np.arange(count) % 100]
    good = query_outcomes(centres + 0.3 * random.normal(size=(count, 8)), images)
    bad = query_outcomes(centres + 1.0 * random.normal(size=(count, 8)), images)
    found = compare_models(good, bad)
    means = [
        np.mean([one.verticals[name].recall[1].mean() for name in "ab"]) for one in (good, bad)
    ]
    assert found["ALL"].difference == pytest.approx(means[0] - means[1])
    assert 0 < found["ALL"].low < found["ALL"].difference < found["ALL"].high
    assert found["ALL"].is_clear and found["ALL"].queries == 300
    back = compare_models(bad, good)["ALL"]
    assert back.difference == -found["ALL"].difference and back.high < 0 and back.is_clear
    alone = found["a"]
    assert alone.queries == 150
    assert alone.difference == pytest.approx(
        good.verticals["a"].recall[1].mean() - bad.verticals["a"].recall[1].mean()
    )


def test_scopes_can_be_compared():
    found = compare_models(query_outcomes(ANGLES, SMALL), query_outcomes(ANGLES, SMALL, "merged"))
    assert found["ALL"].difference == 0.25 and found["tops"].difference == 0.5
    same = compare_models(
        query_outcomes(ANGLES, SMALL), query_outcomes(ANGLES, SMALL, "merged"), k=5
    )
    assert same["ALL"].difference == 0.0


def test_models_with_different_queries_are_not_compared():
    other = make_set([("b1", "bags", "both"), ("b1", "bags", "both")])
    with pytest.raises(UserError, match="same queries"):
        compare_models(query_outcomes(ANGLES, SMALL), query_outcomes(ANGLES[:2], other))
    one = query_outcomes(ANGLES, SMALL)
    with pytest.raises(UserError, match="k is 2; expected one of 1, 5, 10, 20"):
        compare_models(one, one, k=2)


def test_a_set_without_answered_queries_is_an_error():
    alone = make_set([("a", "x", "both"), ("b", "x", "both"), ("a", "y", "query")])
    with pytest.raises(UserError, match=r"none of 3 queries .* among 2 gallery"):
        query_outcomes(np.eye(3), alone)
    with pytest.raises(UserError, match="none of 0 queries"):
        query_outcomes(np.zeros((0, 2)), EvaluationSet([], [], [], [], []))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scopes": ("inside",)}, "scope is 'inside'; expected one of within, merged"),
        ({"embeddings": ANGLES[:5]}, "for 11 images"),
        ({"embeddings": ANGLES * np.nan}, "NaN"),
        ({"embeddings": ANGLES * 0}, "all zero"),
        ({"parameters": -1}, "unified: parameters is -1"),
        ({"models_to_deploy": -2}, "unified: models_to_deploy is -2"),
    ],
)
def test_invalid_input_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        evaluate(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"records": [1, 2, 1]}, "duplicate record 1 in the evaluation set"),
        ({"items": ["a", "b"]}, "items of shape"),
        ({"is_query": [[True]] * 3}, "is_query of shape"),
        ({"verticals": ["x", "ALL", "y"]}, "named 'ALL'"),
    ],
)
def test_an_invalid_evaluation_set_is_refused(change, message):
    good = {
        "records": [1, 2, 3], "items": ["a", "b", "c"], "verticals": ["x", "x", "y"],
        "is_query": [True] * 3, "is_gallery": [True] * 3,
    }  # fmt: skip
    assert len(EvaluationSet(**good)) == 3
    with pytest.raises(UserError, match=message):
        EvaluationSet(**{**good, **change})


def test_a_thousand_verticals_are_evaluated():
    verticals, each = 1000, 12
    number = np.repeat(np.arange(verticals), each)
    item = np.tile(np.arange(each) // 2, verticals)
    images = EvaluationSet(
        records=np.arange(len(number)),
        items=np.array([f"{one}-{other}" for one, other in zip(number, item)], object),
        verticals=np.array([f"v{one:04}" for one in number], object),
        is_query=np.ones(len(number), bool),
        is_gallery=np.ones(len(number), bool),
    )
    # Each item of a vertical has its own direction; all verticals use the same directions.
    embeddings = np.eye(each // 2)[item]
    rows = by_key(evaluate(embeddings, images))
    assert len(rows) == 2 * (verticals + 1)
    assert rows["within", "ALL"]["r_at_1"] == rows["within", "v0999"]["r_at_1"] == 1.0
    assert rows["merged", "ALL"]["r_at_1"] < 0.01
    assert sum(answered_queries(images).values()) == len(number)
