import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apparel_embed.evaluation.absent import LEVELS, absent_threshold, measure_absent, thresholds_of
from apparel_embed.evaluation.split import EvaluationSet

LEVEL = st.sampled_from([0.01, 0.05, 0.1, 0.2, 0.25, 0.5, 0.9])
# A few distinct distances, so many are equal.
QUERIES = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 2.0, np.inf]), min_size=1, max_size=4)


def fit(groups, level):
    items = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return absent_threshold(np.concatenate([[], *groups]), items, level)


@given(st.lists(QUERIES, min_size=1, max_size=30), LEVEL)
def test_at_most_the_promised_share_of_exchangeable_items_is_accepted(groups, level):
    accepted = []
    for left_out, group in enumerate(groups):
        threshold = fit(groups[:left_out] + groups[left_out + 1 :], level)
        accepted.append(0 if threshold is None else np.mean(np.array(group) < threshold))
    # Every item is equally likely to be the new one.
    assert np.mean(accepted) <= level + 1e-9


@given(st.lists(QUERIES, min_size=1, max_size=30), LEVEL)
def test_a_larger_threshold_would_accept_more_than_allowed(groups, level):
    threshold = fit(groups, level)
    budget = level * (len(groups) + 1) - 1

    def passed(below):
        return sum(np.mean([below(one) for one in group]) for group in groups)

    if threshold is None:
        assert budget < 1e-6 or passed(np.isfinite) <= budget + 1e-6
    else:
        assert passed(lambda one: one < threshold) <= budget + 1e-6
        assert passed(lambda one: one <= threshold) > budget - 1e-6


def test_the_threshold_is_the_lower_quantile_with_one_future_item():
    distances = np.arange(1, 20) / 10
    assert absent_threshold(distances, np.arange(19), 0.05) == 0.1
    assert absent_threshold(distances, np.arange(19), 0.1) == 0.2
    assert absent_threshold(distances[::-1], np.arange(19), 0.25) == 0.5
    # Three queries of an item weigh as much as one.
    assert absent_threshold(np.repeat(distances, 3), np.repeat(np.arange(19), 3), 0.1) == 0.2
    assert absent_threshold([0.1] * 19, np.arange(19), 0.1) == 0.1


@pytest.mark.parametrize(("level", "needed"), [(0.01, 99), (0.05, 19), (0.1, 9)])
def test_too_few_items_give_no_threshold(level, needed):
    assert absent_threshold(np.ones(needed), np.arange(needed), level) == 1
    assert absent_threshold(np.ones(needed - 1), np.arange(needed - 1), level) is None
    # More queries per item do not help.
    many = np.repeat(np.arange(needed - 1), 50)
    assert absent_threshold(np.ones(len(many)), many, level) is None
    assert absent_threshold([], [], level) is None


def at(degrees):
    """Returns unit vectors at the given angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def apart(degrees):
    """Returns the distance of unit vectors with the given angle between them."""
    return 2 * np.sin(np.radians(degrees) / 2)


def small_catalogue():
    """Returns 9 val items in each of two verticals, and two test bags; an image for each role.

    Gallery images are 10 degrees apart. The query of val item n is (n + 1) / 10 degrees from its
    own image and 10 - (n + 1) / 10 degrees from the next. Hats are between bags.
    """
    rows = [
        (f"{vertical}{n}", vertical, "val", role, 10 * n + start + (n + 1) / 10 * (role == "query"))
        for vertical, start in (("bag", 0), ("hat", 5))
        for n in range(9)
        for role in ("query", "gallery")
    ]
    rows += [
        ("test0", "bag", "test", "query", 100.5),
        ("test0", "bag", "test", "gallery", 100),
        ("test1", "bag", "test", "query", 105),
        ("test1", "bag", "test", "gallery", 105.5),
        # Train images are in the searched gallery, but are not queries.
        ("train0", "bag", "train", "both", 90),
    ]
    items, verticals, splits, roles, degrees = (np.array(column) for column in zip(*rows))
    images = EvaluationSet(
        np.arange(len(rows)), items, verticals, roles != "gallery", roles != "query"
    )
    return at(degrees.astype(float)), images, splits


def row_of(absent, scope, vertical):
    (found,) = [
        row for row in absent["rows"] if (row["scope"], row["vertical"]) == (scope, vertical)
    ]
    return found


def test_figures_of_a_small_catalogue():
    absent = measure_absent(*small_catalogue(), "test")
    bag = row_of(absent, "within", "bag")
    assert (bag["val_items"], bag["gallery"], bag["queries"]) == (9, 12, 2)
    hundredth, twentieth, tenth = bag["levels"]
    assert [one["promised"] for one in bag["levels"]] == list(LEVELS)
    assert hundredth["threshold"] is twentieth["threshold"] is twentieth["false_accepts"] is None
    # The query nearest to another item is that of val item 8, 9.1 degrees from the train image.
    assert tenth["threshold"] == pytest.approx(apart(9.1), abs=1e-6)
    # Without its own item, each query's nearest image is 5 degrees away.
    assert tenth["false_accepts"] == 1
    assert tenth["false_accepts_low"] < 0.5
    assert tenth["accepted_and_right"] == 1

    hat = row_of(absent, "within", "hat")
    assert (hat["gallery"], hat["queries"]) == (9, 0)
    assert hat["levels"][2]["threshold"] == pytest.approx(apart(9.2), abs=1e-6)
    assert hat["levels"][2]["false_accepts"] is None
    mean = row_of(absent, "within", "ALL")
    assert (mean["val_items"], mean["gallery"], mean["queries"]) == (18, 21, 2)
    assert mean["levels"][2] == {**tenth, "threshold": None}
    # Hats are between bags, so the nearest other item in all verticals is at 5 - 0.9 degrees.
    merged = row_of(absent, "merged", "ALL")
    assert (merged["val_items"], merged["gallery"]) == (18, 21)
    assert merged["levels"][2]["threshold"] == pytest.approx(apart(4.1), abs=1e-6)
    assert merged["levels"][2]["false_accepts"] == 0
    assert merged["levels"][2]["accepted_and_right"] == 1
    assert thresholds_of(absent) == {
        "0.01": {},
        "0.05": {},
        "0.1": {
            "bag": tenth["threshold"],
            "hat": hat["levels"][2]["threshold"],
            "ALL": merged["levels"][2]["threshold"],
        },
    }


def test_an_accepted_image_of_another_item_is_not_right():
    embeddings, images, splits = small_catalogue()
    items = images.items.copy()
    # The image next to the first test query becomes another item, and its own is far away.
    items[[37, 39]] = "test1", "test0"
    swapped = EvaluationSet(
        images.records, items, images.verticals, images.is_query, images.is_gallery
    )
    tenth = row_of(measure_absent(embeddings, swapped, splits, "test"), "within", "bag")["levels"][
        2
    ]
    assert tenth["accepted_and_right"] == 0
    assert tenth["false_accepts"] == 1


def test_evaluating_split_val_gives_thresholds_but_no_figures():
    embeddings, images, splits = small_catalogue()
    absent = measure_absent(embeddings, images, splits, "val")
    assert thresholds_of(absent) == thresholds_of(
        measure_absent(embeddings, images, splits, "test")
    )
    assert {row["queries"] for row in absent["rows"]} == {0}
    assert all(
        one[name] is None
        for row in absent["rows"]
        for one in row["levels"]
        for name in ("false_accepts", "false_accepts_high", "accepted_and_right")
    )


def test_a_vertical_with_queries_and_no_gallery_accepts_nothing():
    embeddings, images, splits = small_catalogue()
    keeps = images.is_gallery & (images.verticals != "hat")
    bare = EvaluationSet(images.records, images.items, images.verticals, images.is_query, keeps)
    hat = row_of(measure_absent(embeddings, bare, splits, "test"), "within", "hat")
    assert (hat["val_items"], hat["gallery"]) == (9, 0)
    assert [one["threshold"] for one in hat["levels"]] == [None] * 3
