import dataclasses
import json

import pytest
from fake_trainer import FakeTrainer, outcomes_of

from apparel_embed.common.errors import UserError
from apparel_embed.grouping.decision import Rule
from apparel_embed.grouping.search import SearchConfig, render_search, search_groups
from apparel_embed.grouping.strategies import StrategyConfig, parse_groups
from apparel_embed.grouping.trials import Budget

FAMILIES = (("bag", "top", "trousers"), ("dress", "eyewear"), ("socks",))
SEARCHES = pytest.mark.parametrize("strategy", ["greedy", "affinity"])


def search(trainer, strategy, budget=None, rule=None, **settings):
    config = SearchConfig(StrategyConfig(strategy, **settings), rule or Rule(), budget or Budget())
    return search_groups(trainer, config)


@SEARCHES
def test_families_that_can_share_a_model_are_found(strategy):
    found = search(FakeTrainer(FAMILIES), strategy)

    assert sorted(found["groups"]) == sorted(map(list, FAMILIES))
    assert found["complete"]


@pytest.mark.parametrize("families", [[(c,) for c in "abcd"], [tuple("abcd")]])
@SEARCHES
def test_single_verticals_and_one_group_of_all_are_also_found(strategy, families):
    assert sorted(search(FakeTrainer(families), strategy)["groups"]) == sorted(map(list, families))


def test_affinity_trains_fewer_steps_than_greedy():
    steps = {
        strategy: search(FakeTrainer(FAMILIES), strategy)["trained_steps"]
        for strategy in ("greedy", "affinity")
    }

    # 6 single verticals, then groups of 3 and 2; greedy also tries groups that do not work.
    assert steps["affinity"] == 6 * 10 + 5 * 10
    assert steps["greedy"] > 1.5 * steps["affinity"]


@SEARCHES
def test_a_loss_within_the_tolerance_is_accepted_and_a_larger_one_is_not(strategy):
    tolerant, strict = Rule(tolerance=0.6), Rule(tolerance=0.05)
    # Affinity does not try verticals that transfer badly unless the threshold allows it.
    settings = {"affinity_threshold": -1.0}

    together = search(FakeTrainer(FAMILIES), strategy, rule=tolerant, **settings)
    apart = search(FakeTrainer(FAMILIES), strategy, rule=strict, **settings)

    assert together["groups"] == [["bag", "dress", "eyewear", "socks", "top", "trousers"]]
    assert sorted(apart["groups"]) == sorted(map(list, FAMILIES))


@SEARCHES
def test_a_tie_is_accepted_with_any_number_of_items(strategy):
    for items in (1, 5, 60):
        for rule in (Rule(), Rule(tolerance=0.0)):
            found = search(FakeTrainer([("a", "b")], items=items), strategy, rule=rule)
            assert found["groups"] == [["a", "b"]]
            assert found["decisions"][0]["evidence"][0]["expected"] == 0


@SEARCHES
def test_tied_affinities_give_the_same_groups_in_any_order_of_verticals(strategy):
    forward, backward = FakeTrainer([tuple("abcd")]), FakeTrainer([tuple("abcd")])
    backward.verticals = list("dcba")

    assert search(forward, strategy) == search(backward, strategy)


@SEARCHES
def test_nothing_is_trained_twice(strategy):
    trainer = FakeTrainer(FAMILIES)
    search(trainer, strategy)

    assert len(set(trainer.trained)) == len(trainer.trained)


@SEARCHES
@pytest.mark.parametrize("at", range(8))
def test_a_killed_search_resumes_with_the_same_result(strategy, at):
    whole = search(FakeTrainer(FAMILIES), strategy)
    killed = FakeTrainer(FAMILIES, fail_at=at)
    with pytest.raises(KeyboardInterrupt):
        search(killed, strategy)
    resumed = FakeTrainer(FAMILIES, finished=killed.finished)
    found = search(resumed, strategy)

    assert found == whole
    assert not set(killed.trained) & set(resumed.trained)


@SEARCHES
@pytest.mark.parametrize("trainings", range(1, 20))
def test_a_search_within_a_budget_of_trainings_gives_a_partition(strategy, trainings):
    trainer = FakeTrainer(FAMILIES)
    found = search(trainer, strategy, Budget(trainings=trainings))

    whole = len(search(FakeTrainer(FAMILIES), strategy)["trials"])
    assert len(trainer.trained) == min(trainings, whole)
    assert found["complete"] == (trainings >= whole)
    assert sorted(name for group in found["groups"] for name in group) == trainer.verticals
    # The groups found so far are right, but may be incomplete.
    for group in found["groups"]:
        assert any(set(group) <= set(family) for family in FAMILIES)


@SEARCHES
def test_more_budget_never_gives_more_groups(strategy):
    counts = [
        len(search(FakeTrainer(FAMILIES), strategy, Budget(trainings=number))["groups"])
        for number in range(1, 20)
    ]

    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 6
    assert counts[-1] == 3


def test_the_training_during_which_the_minutes_run_out_is_finished():
    # A training takes a minute per vertical.
    trainer = FakeTrainer(FAMILIES)
    found = search(trainer, "greedy", Budget(minutes=3.5))

    # bag, dress, bag + dress: 4 minutes.
    assert trainer.trained == [("bag",), ("dress",), ("bag", "dress")]
    assert not found["complete"]
    assert found["groups"] == [[name] for name in trainer.verticals]


def test_a_rejected_cluster_is_split_and_its_halves_are_tried():
    # All four transfer to each other, but only the pairs can share a model.
    trainer = FakeTrainer([("a", "b"), ("c", "d")])
    trainer.recall = lambda group, vertical: (
        0.8 if len(group) < 3 and {*group, vertical} not in ({"a", "c"}, {"b", "d"}) else 0.4
    )
    found = search(trainer, "affinity", affinity_threshold=0.3)

    assert found["groups"] == [["a", "b"], ["c", "d"]]
    assert [decision["accepted"] for decision in found["decisions"]] == [False, True, True]


@SEARCHES
def test_greedy_but_not_affinity_groups_a_vertical_without_validation_queries(strategy):
    # All three can share a model, but c has no validation queries.
    trainer = FakeTrainer([("a", "b", "c")])
    train, untrained = trainer.train, trainer.untrained

    def without_c(outcomes):
        empty = outcomes_of({"c": 0.0}, items=0).verticals
        return dataclasses.replace(outcomes, verticals={**outcomes.verticals, **empty})

    def train_without_c(verticals):
        trial = train(verticals)
        return dataclasses.replace(trial, outcomes=without_c(trial.outcomes))

    trainer.train, trainer.untrained = train_without_c, lambda: without_c(untrained())
    found = search(trainer, strategy)

    # Affinity cannot measure c, and leaves it alone.
    together = {"greedy": [["a", "b", "c"]], "affinity": [["a", "b"], ["c"]]}
    assert found["groups"] == together[strategy]


def test_each_all_and_given_train_nothing():
    for strategy, settings, groups in (
        ("each", {}, [["a"], ["b"], ["c"]]),
        ("all", {}, [["a", "b", "c"]]),
        ("given", {"given": parse_groups(["c + a"])}, [["a", "c"], ["b"]]),
    ):
        trainer = FakeTrainer([("a", "b", "c")])
        assert search(trainer, strategy, **settings)["groups"] == groups
        assert trainer.trained == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a+x"], "groups a.x: vertical 'x' is unknown; expected verticals of .*: a, b, c"),
        (["a+b", "b"], "groups a.b,b: b occurs more than once"),
    ],
)
def test_given_groups_that_do_not_match_the_dataset_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        search(FakeTrainer([("a", "b", "c")]), "given", given=parse_groups(given))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule(tolerance=-0.1), "tolerance is -0.1; expected 0 to 1"),
        (lambda: Budget(trainings=0), "budget of trainings is 0; expected more than 0"),
        (lambda: Budget(minutes=float("nan")), "budget of minutes is nan"),
        (
            lambda: StrategyConfig("best"),
            "grouping is 'best'; expected one of each, all, given, greedy",
        ),
        (lambda: StrategyConfig("given"), "groups are none; expected groups for grouping given"),
        (lambda: StrategyConfig("greedy", given=(("a",),)), "groups are a"),
        (lambda: StrategyConfig(affinity_threshold=2.0), "expected -1 to 1"),
    ],
)
def test_settings_out_of_range_are_refused_with_the_expected_range(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_record_contains_every_trial_and_its_evidence():
    record = json.loads(json.dumps(search(FakeTrainer([("a", "b"), ("c",)]), "affinity")))

    assert record["groups"] == [["a", "b"], ["c"]]
    assert [trial["verticals"] for trial in record["trials"]] == [["a"], ["b"], ["c"], ["a", "b"]]
    assert record["trials"][3]["r_at_1"]["a"] == pytest.approx(0.8)
    (decision,) = record["decisions"]
    assert decision["group"] == ["a", "b"]
    assert [one["queries"] for one in decision["evidence"]] == [180, 180]
    assert [one["items"] for one in decision["evidence"]] == [60, 60]
    assert record["affinity"]["a"] == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert record["trained_seconds"] == 300.0


def test_the_table_shows_decisions_and_whether_the_budget_was_spent():
    text = render_search(search(FakeTrainer(FAMILIES), "greedy", Budget(trainings=5)))

    assert "bag + dress" in text
    assert "-0.300 [" in text
    assert "5 trainings" in text
    assert "budget was spent" in text
