"""The choice of teachers, on queries with constructed outcomes."""

import dataclasses

import numpy as np
import pytest
from fake_trainer import outcomes_of

from apparel_embed.distillation.teacher_choice import (
    CONFIDENCE,
    Candidate,
    choose_kind,
    choose_teacher,
)
from apparel_embed.evaluation.bootstrap import unseen_loss


def choose(items=60, seed=0, **recalls):
    outcomes = {name: outcomes_of({"bags": recall}, items) for name, recall in recalls.items()}
    return choose_teacher("bags", outcomes, seed)


def test_the_joint_is_kept_if_all_candidates_find_the_same():
    choice = choose(joint=0.8, own=0.8, combined=0.8)

    assert (choice.vertical, choice.chosen) == ("bags", "joint")
    assert (choice.queries, choice.items) == (180, 60)
    assert [one.name for one in choice.candidates] == ["joint", "own", "combined"]
    assert all(one.r_at_1 == pytest.approx(0.8) for one in choice.candidates)
    for one in choice.candidates:
        assert one.difference == 0
        # If all items agree, the bootstrap has no width, but unseen items may still differ.
        assert one.low == pytest.approx(-unseen_loss(60, CONFIDENCE))


def test_a_candidate_that_may_be_better_by_chance_is_not_chosen():
    choice = choose(items=60, joint=0.80, own=0.83)

    own = choice.candidates[1]
    assert own.difference == pytest.approx(0.03, abs=0.01)
    assert own.low < 0
    assert choice.chosen == "joint"


def test_a_candidate_that_is_clearly_better_is_chosen():
    choice = choose(items=60, joint=0.5, own=0.9, combined=0.3)

    assert choice.chosen == "own"
    joint, own, combined = choice.candidates
    assert own == Candidate("own", pytest.approx(0.9), pytest.approx(0.4), own.low)
    assert 0.2 < own.low < own.difference
    assert combined.low < combined.difference < 0
    assert joint.difference == 0


def test_the_clearly_better_candidate_with_the_highest_lower_bound_is_chosen():
    assert choose(joint=0.3, own=0.8, combined=0.9).chosen == "combined"
    assert choose(joint=0.3, own=0.9, combined=0.8).chosen == "own"
    # The order of candidates does not matter.
    assert choose(joint=0.3, combined=0.8, own=0.9).chosen == "own"


@pytest.mark.parametrize("items", [1, 2, 3])
def test_no_candidate_is_shown_to_be_better_on_three_items(items):
    for joint in (0.9, 0.6, 0.3, 0.0):
        choice = choose(items=items, joint=joint, own=1.0)
        assert choice.items == items
        assert choice.chosen == "joint", joint


def test_queries_of_other_verticals_have_no_effect():
    outcomes = {
        "joint": outcomes_of({"bags": 0.8, "dresses": 0.2}),
        "own": outcomes_of({"bags": 0.8, "dresses": 1.0}),
    }
    assert choose_teacher("bags", outcomes).chosen == "joint"
    assert choose_teacher("dresses", outcomes).chosen == "own"
    assert choose_teacher("bags", outcomes).queries == 180


def test_a_few_items_with_many_queries_are_still_few():
    def outcomes(hits):
        found = outcomes_of({"bags": 1.0}, 3)
        metrics = found.verticals["bags"]
        many = metrics.select(np.repeat(np.arange(len(metrics)), 100))
        values = np.full(len(many), float(hits))
        many = dataclasses.replace(
            many, records=np.arange(len(many)), recall=dict.fromkeys(many.recall, values)
        )
        return dataclasses.replace(found, verticals={"bags": many})

    choice = choose_teacher("bags", {"joint": outcomes(0.6), "own": outcomes(1.0)})
    assert (choice.queries, choice.items, choice.chosen) == (900, 3, "joint")


def test_the_same_seed_gives_the_same_choice_and_evidence():
    assert choose(joint=0.5, own=0.6, seed=3) == choose(joint=0.5, own=0.6, seed=3)


def kinds(items=12, **recalls):
    """Returns outcomes of candidates in four verticals; a kind finds the same in all of them."""
    return {
        kind: {
            vertical: outcomes_of({vertical: recall}, items)
            for vertical in ("bags", "hats", "skirts", "tops")
        }
        for kind, recall in recalls.items()
    }


def test_all_verticals_together_show_a_difference_that_none_shows_alone():
    # The specialists find one more of twelve items in each vertical.
    found = kinds(joint=0.5, special=0.5 + 1 / 12, general=0.4)
    assert choose_kind(found) == "special"
    for vertical in found["joint"]:
        alone = {kind: one[vertical] for kind, one in found.items()}
        assert choose_teacher(vertical, alone).chosen == "joint"


def test_the_joint_is_kept_if_all_verticals_together_show_no_difference():
    assert choose_kind(kinds(joint=0.5, special=0.5, general=0.5)) == "joint"
    assert choose_kind(kinds(joint=0.5, special=0.45, general=0.3)) == "joint"
    assert choose_kind(kinds(items=1, joint=0.0, special=1.0)) == "joint"
