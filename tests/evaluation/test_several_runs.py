from __future__ import annotations

import json

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation.metrics import QueryMetrics
from apparel_embed.evaluation.protocol import KS, Outcomes, summary_rows
from apparel_embed.evaluation.several_runs import (
    difference_over_runs,
    mean_recall,
    pool_runs,
    row_over_runs,
)


def outcomes(scope="within", **hits):
    """Returns outcomes of one run from whether each query was right; items have two queries.

    Recall@k for k above 1 is 1, and average precision is half of recall@1.
    """
    verticals = {}
    for place, (name, values) in enumerate(hits.items()):
        values = np.array(values, float)
        verticals[name] = QueryMetrics(
            records=100 * place + np.arange(len(values)),
            items=np.array([f"i{number // 2}" for number in range(len(values))]),
            recall={k: values if k == 1 else np.ones(len(values)) for k in KS},
            average_precision_at_r=values / 2,
            chance=np.full(len(values), 0.1),
            without_answer=0,
        )
    return Outcomes(scope, verticals, dict.fromkeys(hits, 9), 9 * len(hits))


# Two trainings on the same data: 3/4 and 1/2 of bags are right, and 1/2 and all of tops.
FIRST = outcomes(bags=[1, 1, 1, 0], tops=[1, 0])
SECOND = outcomes(bags=[1, 0, 1, 0], tops=[1, 1])
# Other data, with more queries: 1/6 of bags are right, and no tops.
OTHER = outcomes(bags=[0, 0, 0, 0, 0, 1], tops=[0, 0])


def test_runs_of_one_dataset_are_averaged_query_by_query():
    pooled = pool_runs([FIRST, SECOND], ["a", "a"])

    assert list(pooled.verticals) == ["0/bags", "0/tops"]
    assert pooled.verticals["0/bags"].recall[1].tolist() == [1, 0.5, 1, 0]
    assert pooled.verticals["0/tops"].recall[1].tolist() == [1, 0.5]
    assert pooled.verticals["0/bags"].average_precision_at_r.tolist() == [0.5, 0.25, 0.5, 0]
    assert pooled.verticals["0/bags"].recall[5].tolist() == [1, 1, 1, 1]
    assert pooled.verticals["0/bags"].records.tolist() == [0, 1, 2, 3]
    assert (pooled.scope, pooled.gallery, pooled.gallery_in_all) == (
        "within", {"0/bags": 9, "0/tops": 9}, 18,
    )  # fmt: skip


def test_a_vertical_that_does_not_count_in_one_dataset_is_left_out_in_all():
    # Items have two queries; a vertical counts from five items on.
    large = outcomes(bags=[1] * 7 + [0] * 3, tops=[1] * 10)
    small = outcomes(bags=[1] * 9 + [0], tops=[0] * 8)

    row = row_over_runs([large, small], ["a", "b"])
    assert row["r_at_1_runs"] == pytest.approx([0.7, 0.9])
    assert (row["r_at_1"], row["left_out"]) == (pytest.approx(0.8), ["tops"])
    difference = difference_over_runs([large, small], [small, large], ["a", "b"])
    assert difference["difference_runs"] == pytest.approx([-0.2, 0.2])


def test_every_vertical_of_every_dataset_is_a_stratum():
    pooled = pool_runs([FIRST, OTHER, SECOND], ["a", "b", "a"])

    assert {name: one.recall[1].tolist() for name, one in pooled.verticals.items()} == {
        "0/bags": [1, 0.5, 1, 0],
        "0/tops": [1, 0.5],
        "1/bags": [0, 0, 0, 0, 0, 1],
        "1/tops": [0, 0],
    }
    assert pooled.gallery_in_all == 36


def test_figures_over_runs_of_one_dataset_computed_by_hand():
    row = row_over_runs([FIRST, SECOND], ["a", "a"])

    # Bags 2.5 of 4, tops 1.5 of 2.
    assert row["r_at_1"] == (0.625 + 0.75) / 2
    assert row["map_at_r"] == row["r_at_1"] / 2
    assert row["r_at_5"] == 1.0
    assert row["r_at_1_runs"] == [(0.75 + 0.5) / 2, (0.5 + 1) / 2]
    # The two values differ by 1/8.
    assert row["r_at_1_std"] == pytest.approx(0.125 / np.sqrt(2))
    assert (row["scope"], row["strata"], row["queries"]) == ("within", 2, 6)
    # Bags are 0.75 and 0.5 by item; tops are a single item, which says little about others.
    assert row["r_at_1_low"] < 0.4 and row["r_at_1_high"] > 0.75
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_datasets_have_equal_weight_regardless_of_their_runs():
    row = row_over_runs([FIRST, SECOND, OTHER], ["a", "a", "b"])

    assert row["r_at_1"] == pytest.approx((0.625 + 0.75 + 1 / 6 + 0) / 4)
    assert row["r_at_1_runs"] == pytest.approx([0.625, 0.75, 1 / 12])
    assert (row["strata"], row["queries"]) == (4, 14)


def test_items_of_the_same_name_in_two_datasets_are_drawn_separately():
    right, wrong = outcomes(bags=[1, 1]), outcomes(bags=[0, 0])
    row = row_over_runs([right, wrong], ["a", "b"])

    # Each dataset has one item. As two items of one, a quarter of resamples would find neither.
    assert row["r_at_1"] == 0.5
    assert 0.05 < row["r_at_1_low"] < row["r_at_1_high"] < 0.95


def test_equal_runs_have_the_interval_of_one_run_and_no_deviation():
    row = row_over_runs([FIRST, FIRST, FIRST], ["a", "a", "a"], seed=3)
    alone = next(one for one in summary_rows(FIRST, seed=3) if one["vertical"] == "ALL")

    names = ("r_at_1", "r_at_1_low", "r_at_1_high", "r_at_5", "map_at_r")
    assert [row[name] for name in names] == [alone[name] for name in names]
    assert row["r_at_1_std"] == 0.0


def random_runs(seed, shares, queries=80):
    random = np.random.default_rng(seed)
    return [
        outcomes(bags=random.random(queries) < share, tops=random.random(queries) < share)
        for share in shares
    ]


def test_intervals_contain_the_mean_and_narrow_with_more_datasets():
    runs = random_runs(0, [0.5] * 4)
    one, four = (row_over_runs(runs, names) for names in ("aaaa", "abcd"))

    for row in (one, four):
        assert row["r_at_1_low"] < row["r_at_1"] < row["r_at_1_high"]
        assert row["r_at_1"] == pytest.approx(np.mean(row["r_at_1_runs"]))
    assert one["r_at_1"] == pytest.approx(four["r_at_1"])
    alone = next(row for row in summary_rows(runs[0]) if row["vertical"] == "ALL")
    widths = [row["r_at_1_high"] - row["r_at_1_low"] for row in (alone, four)]
    # Four times the items give half the width.
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.1)


def test_the_order_of_runs_and_names_of_datasets_do_not_affect_intervals():
    runs, names = random_runs(1, [0.4, 0.5, 0.6]), ["a", "b", "a"]
    row = row_over_runs(runs, names, seed=5)
    back = row_over_runs(runs[::-1], names[::-1], seed=5)

    assert back == {**row, "r_at_1_runs": row["r_at_1_runs"][::-1]} | {
        name: pytest.approx(row[name]) for name in ("map_at_r", "r_at_1_std")
    }
    assert row_over_runs(runs, names, seed=6)["r_at_1_low"] != row["r_at_1_low"]


def test_a_vertical_without_an_answer_is_not_a_stratum():
    silent = outcomes(bags=[1, 0], tops=[])
    row = row_over_runs([silent, silent, outcomes(bags=[1, 1], tops=[1, 1])], ["a", "a", "b"])

    assert (row["strata"], row["queries"], row["left_out"]) == (2, 4, ["tops"])
    assert row["r_at_1"] == pytest.approx((0.5 + 1) / 2)
    assert row["r_at_1_runs"] == [0.5, 0.5, 1.0]


def test_equal_models_have_zero_difference():
    found = difference_over_runs([FIRST, SECOND, OTHER], [FIRST, SECOND, OTHER], ["a", "a", "b"])

    assert found == {
        "vertical": "ALL", "queries": 14, "difference": 0.0, "low": 0.0, "high": 0.0,
        "is_clear": False, "difference_runs": [0.0, 0.0, 0.0], "difference_std": 0.0,
    }  # fmt: skip


def test_differences_are_paired_over_queries_within_each_run():
    worse = [outcomes(bags=[0, 1, 0, 0], tops=[0, 0]), outcomes(bags=[0, 0, 0, 0], tops=[1, 0])]
    found = difference_over_runs([FIRST, SECOND], worse, ["a", "a"])

    # Bags 3/4 - 1/4 and 1/2 - 0, tops 1/2 - 0 and 1 - 1/2: each difference is 1/2.
    assert found["difference"] == 0.5
    assert found["difference_runs"] == [0.5, 0.5]
    assert found["difference_std"] == 0.0
    # Every item is also better by 1/2, but three items are too few to be sure of others.
    assert found["low"] < 0 < 0.5 <= found["high"] and not found["is_clear"]
    assert found["queries"] == 6
    back = difference_over_runs(worse, [FIRST, SECOND], ["a", "a"])
    assert (back["difference"], back["is_clear"]) == (-0.5, False)


def test_the_difference_equals_that_of_the_two_rows():
    better, worse = random_runs(2, [0.7, 0.8, 0.6]), random_runs(3, [0.3, 0.2, 0.4])
    names = ["a", "b", "b"]
    found = difference_over_runs(better, worse, names)
    rows = [row_over_runs(runs, names) for runs in (better, worse)]

    assert found["difference"] == pytest.approx(rows[0]["r_at_1"] - rows[1]["r_at_1"])
    assert 0 < found["low"] < found["difference"] < found["high"]
    expected = np.subtract(rows[0]["r_at_1_runs"], rows[1]["r_at_1_runs"])
    assert found["difference_runs"] == pytest.approx(expected.tolist())
    assert found["difference_std"] == pytest.approx(np.std(expected, ddof=1))


def test_recall_of_one_run_is_the_mean_over_verticals():
    assert mean_recall(OTHER) == pytest.approx(1 / 12)
    assert mean_recall(OTHER, k=5) == 1.0


@pytest.mark.parametrize(
    ("runs", "datasets", "message"),
    [
        ([], [], "0 runs; expected at least 2"),
        ([FIRST], ["a"], "1 runs; expected at least 2"),
        ([FIRST, SECOND], ["a"], "2 outcomes and 1 datasets"),
        ([FIRST, outcomes("merged", bags=[1])], ["a", "b"], "scopes merged, within"),
        ([FIRST, OTHER], ["a", "a"], "runs of dataset a did not answer the same queries"),
        ([FIRST, outcomes(bags=[1] * 4)], ["a", "a"], "dataset a did not answer the same queries"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(runs, datasets, message):
    with pytest.raises(UserError, match=message):
        row_over_runs(runs, datasets)
    with pytest.raises(UserError, match=message):
        difference_over_runs(runs, runs, datasets)


def test_models_that_answered_different_queries_are_not_compared():
    with pytest.raises(UserError, match="same queries"):
        difference_over_runs([FIRST, SECOND], [OTHER, OTHER], ["a", "a"])
    with pytest.raises(UserError, match="3 outcomes and 2 datasets"):
        difference_over_runs([FIRST, SECOND], [FIRST, SECOND, SECOND], ["a", "a"])
