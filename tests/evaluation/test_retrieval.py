import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.protocol import EvaluationSet, query_outcomes, summary_rows
from apparel_embed.evaluation.retrieval import evaluate_retrieval


@pytest.fixture
def images():
    """120 images of 2 verticals with 10 items each, and one image with an item of its own."""
    random = np.random.default_rng(0)
    items = np.repeat([f"item{i:02}" for i in range(20)], 6)
    items[0] = "single"
    verticals = np.where(np.arange(120) < 60, "bag", "dress")
    embeddings = np.repeat(random.normal(size=(20, 8)), 6, axis=0) + random.normal(size=(120, 8))
    return embeddings, items, verticals


@pytest.mark.parametrize("scope", ["within", "merged"])
def test_metrics_and_intervals_are_those_of_the_pipeline(images, scope):
    embeddings, items, verticals = images
    is_query = np.arange(120) % 3 == 0
    found = evaluate_retrieval(
        embeddings, items, verticals=verticals, is_query=is_query, scope=scope, seed=3
    )
    whole = EvaluationSet(np.arange(120), items, verticals, is_query, np.ones(120, bool))
    rows = {
        row["vertical"]: row for row in summary_rows(query_outcomes(embeddings, whole, scope), 3)
    }
    for row, result in (("ALL", found), *found.verticals.items()):
        expected = rows[row]
        assert (result.queries, result.gallery) == (expected["queries"], expected["gallery"])
        first = result.r_at_1
        assert first.value == expected["r_at_1"]
        assert (first.low, first.high) == (expected["r_at_1_low"], expected["r_at_1_high"])
        for name in ("r_at_5", "r_at_10", "map_at_r"):
            estimate = getattr(result, name)
            assert estimate.value == expected[name]
            assert estimate.low <= estimate.value <= estimate.high
    assert set(found.verticals) == {"bag", "dress"}
    assert (found.queries, found.without_answer) == (39, 1)


def test_images_of_one_vertical_need_no_vertical_names(images):
    embeddings, items, _ = images
    found = evaluate_retrieval(embeddings, items)
    assert found.verticals == {}
    assert found.queries == 119 and found.gallery == 120
    assert str(found).startswith(f"119 queries: R@1 {found.r_at_1.value:.3f} [")


def test_mismatched_arguments_are_refused(images):
    embeddings, items, verticals = images
    with pytest.raises(UserError, match="embeddings of shape"):
        evaluate_retrieval(embeddings[:-1], items)
    with pytest.raises(UserError, match="verticals of shape"):
        evaluate_retrieval(embeddings, items, verticals=verticals[:5])
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate_retrieval(np.eye(3), ["a", "b", "c"])
    with pytest.raises(UserError, match="scope is 'all'; expected one of"):
        evaluate_retrieval(embeddings, items, scope="all")


@pytest.mark.parametrize("kind", [int, float, object, np.uint64])
def test_numbers_as_names_are_equivalent_to_strings(kind):
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(8, 4))
    items, verticals = np.repeat([4006381333930, 4006381333931, 10, 9], 2), np.repeat([1, 2], 4)
    expected = evaluate_retrieval(
        embeddings, items.astype(str), verticals=["1"] * 4 + ["2"] * 4, seed=3
    )
    found = evaluate_retrieval(
        embeddings, items.astype(kind), verticals=verticals.astype(kind), seed=3
    )
    assert found == expected
    assert found.queries == 8 and list(found.verticals) == ["1", "2"]
    assert evaluate_retrieval(embeddings, items.tolist()).queries == 8


NAN = float("nan")


@pytest.mark.parametrize("argument", ["item_ids", "verticals"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1, 1, NAN, NAN]), r"\[2\] is None; expected a value for every image"),
        (["a", "a", None, None], r"\[2\] is None"),
        (["a", NAN, "b", "b"], r"\[1\] is None"),
        (np.array(["a", "a", "b", NAN], object), r"\[3\] is None"),
        (["a", "a", " ", ""], r"\[2\] is ' '"),
        (["a", "a", 1, 1], ": expected strings, or integers of up to 64 bits"),
        ([2**70] * 4, ": expected strings, or integers of up to 64 bits"),
        (
            np.full(4, 2.0**53),
            r"evaluate_retrieval: row 0: column .*whole numbers below 9007199254740992",
        ),
        (np.full(4, 2**24, np.float32), "row 0: column .*whole numbers below 16777216"),
    ],
)
def test_missing_or_rounded_names_give_a_clear_error(argument, values, message):
    named = {"item_ids": ["a", "a", "b", "b"], argument: values}
    with pytest.raises(UserError, match=message) as caught:
        evaluate_retrieval(np.eye(4), **named)
    assert argument in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("argument", ["is_query", "is_gallery"])
@pytest.mark.parametrize("wrong", [None, NAN, "False", 2])
def test_values_that_are_not_boolean_are_refused(argument, wrong):
    flags = np.array([True, False, wrong, True], object)
    with pytest.raises(UserError, match=rf"{argument}\[2\] is .*; expected True or False"):
        evaluate_retrieval(np.eye(4), list("aabb"), **{argument: flags})


def test_an_item_id_in_two_verticals_stands_for_two_items_in_scope_merged():
    # The nearest image of each bag is a dress with the same id, a degree away, and vice versa.
    angles = np.radians([0, 90, 1, 91])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    verticals = ["bag", "bag", "dress", "dress"]
    found = evaluate_retrieval(embeddings, ["1"] * 4, verticals=verticals, scope="merged")
    assert (found.queries, found.r_at_1.value, found.r_at_5.value) == (4, 0.0, 1.0)
