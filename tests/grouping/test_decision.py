import dataclasses

import pytest
from fake_trainer import outcomes_of

from apparel_embed.grouping.decision import Rule, decide, items_to_show, unseen_loss
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


def test_unseen_loss_is_the_share_at_which_seeing_none_has_the_rest_of_the_confidence():
    for items in (1, 5, 45, 1000):
        for confidence in (0.51, 0.9, 0.999):
            share = unseen_loss(items, confidence)
            assert (1 - share) ** items == pytest.approx(1 - confidence)
    assert unseen_loss(1, 0.9) == pytest.approx(0.9)
    # The rule of three.
    assert unseen_loss(1000, 0.95) == pytest.approx(3 / 1000, rel=0.01)


def test_items_to_show_is_the_least_number_whose_unseen_loss_is_below_the_share():
    assert items_to_show(0.05, 0.9) == 45
    assert items_to_show(0.1, 0.9) == 22
    for share in (0.003, 0.05, 0.3, 0.95, 1.5):
        for confidence in (0.6, 0.9, 0.99):
            needed = items_to_show(share, confidence)
            assert unseen_loss(needed, confidence) < share
            assert needed == 1 or unseen_loss(needed - 1, confidence) >= share


@pytest.mark.parametrize("share", [-0.3, 0.0, 1e-17])
def test_no_number_of_items_shows_a_share_of_nothing(share):
    assert items_to_show(share, 0.9) is None


def test_a_tie_of_five_items_is_not_accepted_and_one_of_sixty_is():
    few, many = decided([0.8], [0.8], [5]), decided([0.8], [0.8], [60])

    assert not few.accepted
    assert few.why == (
        "a +0.000 [-0.369, +0.000] over 15 queries: the validation split is too small (5 items, at "
        "least 45 needed)"
    )
    assert many.accepted
    assert many.why == "a +0.000 [-0.038, +0.000] over 180 queries, lower end above -0.050"


def test_a_larger_tolerance_or_a_gain_needs_fewer_items():
    assert decided([0.8], [0.8], [5], Rule(tolerance=0.4)).accepted
    assert decided([0.4], [0.8], [5]).accepted
    assert not decided([0.4], [0.6], [5]).accepted


def test_a_fall_within_the_tolerance_needs_more_items_than_a_tie():
    # It leaves 0.03 of the tolerance: log(0.1) / log(0.97) is 75.6.
    (evidence,) = decided([0.8], [0.78], [50]).evidence

    assert (evidence.items, evidence.items_needed) == (50, 76)


def test_a_fall_beyond_the_tolerance_is_the_reason_however_few_the_items_of_others():
    for items in ([5, 5], [5, 60], [60, 60]):
        decision = decided([0.8, 0.8], [0.8, 0.4], items)
        assert not decision.accepted
        assert decision.why.startswith("b -0.400 [")
        assert decision.why.endswith(", lower end not above -0.050")


def test_the_vertical_with_the_fewest_items_is_told_where_all_that_lacks_is_items():
    decision = decided([0.8, 0.8, 0.8], [0.8, 0.8, 0.8], [20, 10, 60])

    assert not decision.accepted
    assert decision.why.startswith("b ")
    assert decision.why.endswith("(10 items, at least 45 needed)")


def test_without_a_tolerance_no_number_of_items_is_promised():
    decision = decided([0.8], [0.8], [5], Rule(tolerance=0.0))

    assert not decision.accepted
    assert "too small" not in decision.why
