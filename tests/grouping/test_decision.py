import dataclasses

import pytest
from fake_trainer import outcomes_of

from apparel_embed.grouping.decision import Rule, decide, expected_gains
from apparel_embed.grouping.trials import Trial


def trial(group, recalls, items):
    """The trial of a group that finds so much, of so many items, in each of its verticals."""
    outcomes = [outcomes_of({v: r}, n) for (v, r), n in zip(recalls.items(), items)]
    joined = {v: metrics for one in outcomes for v, metrics in one.verticals.items()}
    return Trial(group, "", dataclasses.replace(outcomes[0], verticals=joined), 1, 1.0)


def decided(own, shared, items, rule=None):
    """Decides on verticals a, b, ... by R@1 of their own specialists and of the shared one."""
    names = tuple("abc"[: len(own)])
    alone = {v: trial((v,), dict(zip(names, own)), items) for v in names}
    return decide(
        alone, lambda group: trial(group, dict(zip(names, shared)), items), rule or Rule()
    )


def test_a_tie_is_accepted_however_few_the_items():
    for items in (1, 5, 60):
        assert decided([0.8], [0.8], [items]).accepted


def test_a_vertical_of_few_items_is_judged_by_the_others_more_than_by_itself():
    assert expected_gains([-0.2, 0.1], [5, 45]) == [0.016, 0.091]
    # Alone, its items are all that is known.
    assert expected_gains([-0.2], [5]) == [-0.2]
    # The more items, the nearer to what was seen.
    few, many = (expected_gains([-0.2, 0.1], [n, 45])[0] for n in (5, 500))
    assert -0.2 < many < -0.18 < few


def test_a_vertical_of_five_items_that_loses_one_does_not_split_a_group_that_gains():
    assert decided([0.8, 0.6], [0.6, 0.7], [5, 45]).accepted
    assert not decided([0.8, 0.6], [0.6, 0.7], [45, 45]).accepted


def test_a_fall_beyond_the_tolerance_is_the_reason():
    decision = decided([0.8, 0.8], [0.8, 0.4], [60, 60])

    assert not decision.accepted
    assert decision.why.startswith("b -0.400 [")
    assert decision.why.endswith(" over 60 items, expected -0.350, below -0.050")


def test_a_larger_tolerance_accepts_a_larger_fall():
    assert not decided([0.8], [0.7], [60]).accepted
    assert decided([0.8], [0.7], [60], Rule(tolerance=0.1)).accepted


def test_a_vertical_without_queries_shares_if_the_others_do():
    alone = {v: trial((v,), {"a": 0.8}, [9]) for v in "ab"}
    decision = decide(alone, lambda group: trial(group, {"a": 0.8}, [9]), Rule())

    assert decision.accepted
    assert decision.without_queries == ("b",)


@pytest.mark.parametrize("tolerance", [-0.1, 1.5])
def test_a_tolerance_that_is_no_share_is_refused(tolerance):
    with pytest.raises(Exception, match=f"tolerance is {tolerance}; expected 0 to 1"):
        Rule(tolerance=tolerance)
