import dataclasses

import pytest
from fake_trainer import outcomes_of

from apparel_embed.grouping.decision import Rule, decide, expected_gains
from apparel_embed.grouping.trials import Trial


def trial(group, recalls, items):
    """Returns the trial of a group with the given R@1 and number of items in each vertical."""
    outcomes = [outcomes_of({v: r}, n) for (v, r), n in zip(recalls.items(), items)]
    joined = {v: metrics for one in outcomes for v, metrics in one.verticals.items()}
    return Trial(group, "", dataclasses.replace(outcomes[0], verticals=joined), 1, 1.0)


def decided(own, shared, items, rule=None):
    """Returns the decision on verticals a, b, ... from R@1 of their own and shared specialists."""
    names = tuple("abc"[: len(own)])
    alone = {v: trial((v,), dict(zip(names, own)), items) for v in names}
    return decide(
        alone, lambda group: trial(group, dict(zip(names, shared)), items), rule or Rule()
    )


def test_a_tie_is_accepted_with_any_number_of_items():
    for items in (1, 5, 60):
        assert decided([0.8], [0.8], [items]).accepted


def test_the_expectation_for_a_vertical_with_few_items_is_shrunk_towards_the_group():
    assert expected_gains([-0.2, 0.1], [5, 45]) == [0.016, 0.091]
    # For a single vertical, only its own items count.
    assert expected_gains([-0.2], [5]) == [-0.2]
    # With more items, the expectation is closer to the observed difference.
    few, many = (expected_gains([-0.2, 0.1], [n, 45])[0] for n in (5, 500))
    assert -0.2 < many < -0.18 < few


def test_one_lost_item_of_five_does_not_split_a_group_that_gains():
    assert decided([0.8, 0.6], [0.6, 0.7], [5, 45]).accepted
    assert not decided([0.8, 0.6], [0.6, 0.7], [45, 45]).accepted


def test_the_reason_names_the_loss_beyond_the_tolerance():
    decision = decided([0.8, 0.8], [0.8, 0.4], [60, 60])

    assert not decision.accepted
    assert decision.why.startswith("b -0.400 [")
    assert decision.why.endswith(" over 60 items, expected -0.350, below -0.050")


def test_a_larger_tolerance_accepts_a_larger_loss():
    assert not decided([0.8], [0.7], [60]).accepted
    assert decided([0.8], [0.7], [60], Rule(tolerance=0.1)).accepted


def test_a_vertical_without_queries_joins_a_group_that_the_others_accept():
    alone = {v: trial((v,), {"a": 0.8}, [9]) for v in "ab"}
    decision = decide(alone, lambda group: trial(group, {"a": 0.8}, [9]), Rule())

    assert decision.accepted
    assert decision.without_queries == ("b",)


@pytest.mark.parametrize("tolerance", [-0.1, 1.5])
def test_a_tolerance_outside_0_to_1_is_refused(tolerance):
    with pytest.raises(Exception, match=f"tolerance is {tolerance}; expected 0 to 1"):
        Rule(tolerance=tolerance)
