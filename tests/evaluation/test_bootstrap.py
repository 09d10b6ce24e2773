from __future__ import annotations

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation import bootstrap
from apparel_embed.evaluation.bootstrap import (
    stratified_bootstrap_interval,
    unseen_loss,
)


def bootstrap_interval(values, items, seed=0, **options):
    """Returns the interval for a single stratum."""
    return stratified_bootstrap_interval(values, items, np.zeros(len(values)), seed, **options)


def paired_difference_interval(a, b, items, strata=None):
    strata = np.zeros(len(a)) if strata is None else strata
    return stratified_bootstrap_interval(a - b, items, strata, possible=(-1, 1))


def resample_slowly(values, items, resamples, seed):
    """Returns means of resamples, item by item, from another stream of random numbers."""
    random = np.random.default_rng(seed)
    by_item = [values[items == item] for item in np.unique(items)]
    return [
        np.concatenate(
            [by_item[i] for i in random.integers(len(by_item), size=len(by_item))]
        ).mean()
        for _ in range(resamples)
    ]


def test_agrees_with_resampling_item_by_item():
    random = np.random.default_rng(1)
    items = random.integers(0, 80, 400)
    values = (random.random(400) < 0.3 + 0.5 * (items % 2)).astype(float)
    low, high = bootstrap_interval(values, items, seed=4)
    slow = np.percentile(resample_slowly(values, items, 4000, seed=9), [2.5, 97.5])
    np.testing.assert_allclose([low, high], slow, atol=0.01)
    assert low < values.mean() < high


def test_intervals_cover_the_truth_about_as_often_as_their_confidence():
    random = np.random.default_rng(0)
    truth, held = 0.6, 0
    items = np.repeat(np.arange(60), 4)
    for trial in range(200):
        # Queries of one item share its chance, so drawing queries would give too narrow intervals.
        chance = random.beta(1.2, 0.8, 60)
        values = (random.random(240) < chance[items]).astype(float)
        low, high = bootstrap_interval(values, items, seed=trial, resamples=400)
        held += low <= truth <= high
    assert 0.90 <= held / 200 <= 0.99


def test_queries_of_an_item_stay_together():
    # Two items of 50 equal queries each: a resample's mean can only be 0, 1/2 or 1.
    values = np.repeat([0.0, 1.0], 50)
    assert bootstrap_interval(values, np.repeat(["a", "b"], 50)) == (0.0, 1.0)
    low, high = bootstrap_interval(values, np.arange(100))
    assert 0.35 < low < 0.45 and 0.55 < high < 0.65


def test_the_same_seed_gives_the_same_interval_in_any_order_of_queries():
    random = np.random.default_rng(2)
    values, items = random.random(300), random.integers(0, 40, 300).astype(str)
    shuffled = random.permutation(300)
    first = bootstrap_interval(values, items, seed=7)
    assert bootstrap_interval(values[shuffled], items[shuffled], seed=7) == first
    assert bootstrap_interval(values, items, seed=8) != first


def test_drawing_in_several_parts_agrees_with_drawing_at_once(monkeypatch):
    values, items = np.random.default_rng(3).random(100), np.arange(100)
    at_once = bootstrap_interval(values, items)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 1500)
    np.testing.assert_allclose(bootstrap_interval(values, items), at_once, atol=0.01)


def test_a_single_item_or_equal_values_give_an_interval_of_zero_width():
    assert bootstrap_interval(np.array([0.0, 1.0]), np.array(["a", "a"])) == (0.5, 0.5)
    assert bootstrap_interval(np.ones(30), np.arange(30)) == (1.0, 1.0)


@pytest.mark.parametrize("items", [1, 2, 5, 30])
def test_items_that_agree_leave_room_for_unseen_ones(items):
    """The exact Clopper-Pearson limit, for n items that are all found or all missed."""
    room = unseen_loss(items, 0.975)
    numbers, options = np.arange(items), {"possible": (0, 1), "resamples": 20_000}
    low, high = bootstrap_interval(np.ones(items), numbers, **options)
    assert (low, high) == (pytest.approx(1 - room, abs=0.02), 1)
    low, high = bootstrap_interval(np.zeros(items), numbers, **options)
    assert (low, high) == (0, pytest.approx(room, abs=0.02))


def test_one_item_found_by_half_of_its_queries_gives_a_wide_interval():
    low, high = bootstrap_interval(np.array([0.0, 1.0]), np.array(["a", "a"]), possible=(0, 1))
    assert low < 0.1 and high > 0.9


def test_items_that_differ_are_resampled_as_without_possible():
    values = np.repeat([0.0, 1.0], 50)
    wide = bootstrap_interval(values, np.arange(100), possible=(0, 1))
    assert wide == bootstrap_interval(values, np.arange(100))


def test_a_vertical_without_hits_widens_the_interval_upwards_only():
    """Its unseen items may be found, which must not raise the lower end."""
    values = np.concatenate([np.repeat([0.0, 1.0], 20), np.zeros(40)])
    items, strata = np.arange(80), np.repeat([0, 1], 40)
    low, high = stratified_bootstrap_interval(values, items, strata)
    wider = stratified_bootstrap_interval(values, items, strata, possible=(0, 1))
    assert wider[0] == low and high < wider[1] < high + 0.05


@pytest.mark.parametrize(("items", "is_clear"), [(1, False), (5, False), (6, True), (40, True)])
def test_a_model_better_on_every_item_is_clearly_better_from_six_items_on(items, is_clear):
    """As in a sign test: five of five have a two-sided p of 0.0625, six of six of 0.031."""
    low, high = paired_difference_interval(np.ones(items), np.zeros(items), np.arange(items))
    assert (low > 0, high) == (is_clear, 1)


def test_strata_have_equal_weight_regardless_of_their_queries():
    values = np.concatenate([np.ones(90), np.zeros(10)])
    strata = np.repeat(["big", "small"], [90, 10])
    assert stratified_bootstrap_interval(values, np.arange(100), strata) == (0.5, 0.5)


def test_the_stratified_interval_is_that_of_the_mean_of_independent_strata():
    random = np.random.default_rng(5)
    values = np.concatenate([random.normal(0, 1, 400), random.normal(4, 2, 100)])
    strata = np.repeat([0, 1], [400, 100])
    low, high = stratified_bootstrap_interval(values, np.arange(500), strata, resamples=8000)
    half = 1.96 * np.sqrt(values[:400].var() / 400 + values[400:].var() / 100) / 2
    centre = (values[:400].mean() + values[400:].mean()) / 2
    np.testing.assert_allclose([low, high], [centre - half, centre + half], atol=0.02)


def test_the_same_item_id_in_two_strata_stands_for_two_items():
    values = np.array([0.0, 1.0, 0.0, 1.0])
    strata = np.array(["x", "x", "y", "y"])
    same = stratified_bootstrap_interval(values, np.array(["1", "2", "1", "2"]), strata)
    other = stratified_bootstrap_interval(values, np.array(["1", "2", "3", "4"]), strata)
    assert same == other


def test_the_difference_of_equal_models_is_exactly_zero():
    values, items = np.random.default_rng(6).random(50), np.arange(50) // 2
    assert paired_difference_interval(values, values, items) == (0.0, 0.0)
    assert paired_difference_interval(values, values, items, strata=items % 2) == (0.0, 0.0)


def test_pairing_reveals_a_small_steady_difference_that_separate_intervals_hide():
    random = np.random.default_rng(7)
    hard = random.random(300)
    items = np.arange(300)
    better = hard + 0.02 + random.normal(0, 0.01, 300)
    low, high = paired_difference_interval(better, hard, items)
    assert 0.017 < low < high < 0.023 and high - low < 0.003
    assert bootstrap_interval(better, items)[0] < bootstrap_interval(hard, items)[1]
    assert paired_difference_interval(hard, better, items)[1] < 0


def test_a_stratified_difference_gives_strata_equal_weight():
    strata = np.repeat(["big", "small"], [90, 10])
    a = np.ones(100)
    b = np.concatenate([np.ones(90), np.zeros(10)])
    # The first is better on all ten items of "small", but may be worse on 0.31 of unseen ones.
    low, high = paired_difference_interval(a, b, np.arange(100), strata=strata)
    assert (low, high) == (pytest.approx(0.5 - unseen_loss(10, 0.975), abs=0.02), 0.5)
    low, high = paired_difference_interval(a, b, np.arange(100))
    assert low < 0.1 < high < 0.2


def test_a_wider_confidence_gives_a_wider_interval():
    values, items = np.random.default_rng(8).random(200), np.arange(200)
    narrow = bootstrap_interval(values, items, confidence=0.5)
    wide = bootstrap_interval(values, items, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@pytest.mark.parametrize(
    ("values", "items", "options", "message"),
    [
        ([], [], {}, "no values"),
        ([1, 2], [1], {}, "same length"),
        ([1, np.nan], [1, 2], {}, "1 of 2 values are not finite"),
        ([1], [1], {"resamples": 0}, "resamples is 0"),
        ([1], [1], {"confidence": 1.0}, "confidence is 1.0"),
    ],
)
def test_invalid_arguments_are_refused(values, items, options, message):
    with pytest.raises(UserError, match=message):
        bootstrap_interval(np.array(values, float), np.array(items), **options)


def test_unseen_loss_is_the_exact_upper_limit_without_observed_losses():
    for items in (1, 5, 45, 1000):
        for confidence in (0.51, 0.9, 0.999):
            share = unseen_loss(items, confidence)
            assert (1 - share) ** items == pytest.approx(1 - confidence)
    assert unseen_loss(1, 0.9) == pytest.approx(0.9)
    # The rule of three.
    assert unseen_loss(1000, 0.95) == pytest.approx(3 / 1000, rel=0.01)
