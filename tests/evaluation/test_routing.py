import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.evaluation import routing as module
from apparel_embed.evaluation.protocol import EvaluationSet, evaluate_model, query_outcomes
from apparel_embed.evaluation.routing import (
    LEAST_ROUTED,
    calibrate_routing,
    evaluate_routing,
    measure_routing,
)
from apparel_embed.evaluation.table import render_routing

# Two verticals of two items; each query except the last is nearest to its own item's image.
ITEMS = np.array(["a", "b", "c", "d"] * 2)
VERTICALS = np.array(["bag", "bag", "dress", "dress"] * 2)
ANGLES = np.deg2rad([0, 90, 0, 90, 1, 91, 1, 2])
EMBEDDINGS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
IMAGES = EvaluationSet(
    records=np.arange(8),
    items=ITEMS,
    verticals=VERTICALS,
    is_query=np.arange(8) >= 4,
    is_gallery=np.arange(8) < 4,
)


# Only the last four, those of the queries, matter.
CONFIDENCE = np.array([0.0] * 4 + [0.5, 0.7, 0.8, 0.9])


def predicted_but(wrong):
    predicted = VERTICALS.astype(object).copy()
    for query in wrong:
        predicted[query] = "dress" if predicted[query] == "bag" else "bag"
    return predicted


def evaluate(*, wrong=(), routing_confidence=None):
    return evaluate_routing(
        "unified",
        EMBEDDINGS,
        predicted_but(wrong),
        CONFIDENCE,
        IMAGES,
        routing_confidence=routing_confidence,
        parameters=7,
    )


def evaluate_by(scope):
    outcomes = [query_outcomes(EMBEDDINGS, IMAGES, scope)]
    return evaluate_model("unified", outcomes, parameters=7, models_to_deploy=1)


def by_vertical(rows, field="r_at_1", scope="routed"):
    return {row["vertical"]: row[field] for row in rows if row.get("scope", scope) == scope}


def test_routing_with_correct_predictions_equals_the_search_within():
    rows, routing = evaluate()
    routed = [row for row in rows if row["scope"] == "routed"]

    assert [{**row, "scope": "within"} for row in routed] == evaluate_by("within")
    assert by_vertical(rows) == {"bag": 1.0, "dress": 0.5, "ALL": 0.75}
    assert (routing["accuracy"], routing["queries"]) == (1.0, 4)
    assert routing["r_at_1_difference"]["difference"] == 0


def test_a_query_routed_to_a_wrong_vertical_finds_nothing():
    rows, routing = evaluate(wrong=[4])

    assert by_vertical(rows) == {"bag": 0.5, "dress": 0.5, "ALL": 0.5}
    assert by_vertical(rows, "r_at_20") == {"bag": 0.5, "dress": 1.0, "ALL": 0.75}
    assert by_vertical(rows, "map_at_r")["bag"] == 0.5
    assert by_vertical(routing["verticals"], "accuracy") == {"bag": 0.5, "dress": 1.0}
    assert routing["accuracy"] == 0.75
    assert routing["accuracy_low"] <= 0.75 <= routing["accuracy_high"]
    assert routing["r_at_1_difference"]["difference"] == -0.25


def test_misrouting_a_query_that_was_already_wrong_costs_nothing():
    rows, routing = evaluate(wrong=[7])

    assert by_vertical(rows)["ALL"] == 0.75
    assert routing["accuracy"] == 0.75


def test_predictions_for_gallery_images_have_no_effect():
    assert evaluate(wrong=[0, 1, 2, 3]) == evaluate()


def test_without_a_routing_confidence_all_verticals_are_searched():
    rows, routing = evaluate(wrong=[4])
    served = [row for row in rows if row["scope"] == "served"]

    assert [{**row, "scope": "merged"} for row in served] == evaluate_by("merged")
    assert (routing["routing_confidence"], routing["routed"]) == (None, 0)
    assert routing["served_difference"]["difference"] == 0


def test_in_production_only_sure_predictions_are_routed():
    # Both verticals have the same angles, so in all of them a query may find the other's image.
    merged = by_vertical(evaluate_by("merged"), scope="merged")
    rows, routing = evaluate(wrong=[4], routing_confidence=0.8)
    served = by_vertical(rows, scope="served")

    assert served["bag"] == merged["bag"]
    assert served["dress"] == by_vertical(rows)["dress"] == 0.5
    assert (routing["routing_confidence"], routing["routed"]) == (0.8, 2)
    difference = served["ALL"] - merged["ALL"]
    assert routing["served_difference"]["difference"] == pytest.approx(difference)
    # The wrong prediction is also routed.
    rows, routing = evaluate(wrong=[4], routing_confidence=0.5)
    assert by_vertical(rows, scope="served") == by_vertical(rows)
    assert routing["routed"] == 4


def test_lines_show_the_effect_of_routing():
    rows, routing = evaluate(wrong=[4], routing_confidence=0.8)
    _, served, routed = render_routing({"rows": rows, "routing": [routing]})

    assert "2 of 4 queries in the predicted vertical, with a confidence of at least 0.8" in served
    assert f"R@1 {by_vertical(rows, scope='served')['ALL']:.3f}" in served
    assert "R@1 0.500" in routed
    assert "-0.250" in routed
    assert "right for 0.750" in routed
    assert render_routing({"rows": rows}) == []
    rows, routing = evaluate()
    _, served, _ = render_routing({"rows": rows, "routing": [routing]})
    assert "served, always in all verticals" in served


@pytest.mark.parametrize("field", ["parameters", "models_to_deploy"])
def test_rows_have_the_cost_of_the_model_and_head(field):
    rows, _ = evaluate()
    assert {row[field] for row in rows} == {{"parameters": 7, "models_to_deploy": 1}[field]}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.2, 0.5, 0.9, 1.0]), st.booleans(), st.booleans()),
        max_size=4 * LEAST_ROUTED,
    )
)
def test_no_other_confidence_is_better(queries):
    confidence, *right = np.array(queries, float).reshape(-1, 3).T
    routed, merged = (values.astype(bool) for values in right)
    found = calibrate_routing(confidence, routed, merged)
    gains = {}
    for least in set(confidence):
        sure = confidence >= least
        if sure.sum() >= LEAST_ROUTED:
            gains[least] = int(routed[sure].sum()) - int(merged[sure].sum())
    best = max(gains.values(), default=-1)

    assert found.val_queries == len(queries)
    if best < 0:
        assert found.routing_confidence is None
        assert found.routed_queries == len(queries)
    else:
        assert found.routing_confidence == min(c for c, gain in gains.items() if gain == best)
        assert found.routed_queries == (confidence >= found.routing_confidence).sum()
        assert found.r_at_1_routed >= found.r_at_1_merged


def test_searches_are_routed_from_the_confidence_at_which_it_pays():
    # Routing is as good for 60 sure predictions, better for 30 less sure, and wrong for the rest.
    confidence = [0.99] * 60 + [0.8] * 30 + [0.6] * 110
    routed = [True] * 90 + [False] * 110
    merged = [True] * 60 + [False] * 30 + [True] * 110
    found = calibrate_routing(confidence, routed, merged)

    assert (found.routing_confidence, found.routed_queries) == (0.8, 90)
    assert (found.r_at_1_routed, found.r_at_1_merged) == (1.0, pytest.approx(60 / 90))
    assert found.sentence() == (
        "Searches are routed from a confidence of 0.800: R@1 1.000 routed, 0.667 in all verticals "
        "(90 of 200 val queries)."
    )


def test_gains_of_sure_predictions_are_not_lost_on_doubtful_ones():
    confidence = [0.9] * 60 + [0.5] * 10
    found = calibrate_routing(confidence, [1] * 60 + [0] * 10, [1] * 50 + [0] * 10 + [1] * 10)

    # At 0.5 there are as many hits with routing as without.
    assert found.routing_confidence == 0.9


@pytest.mark.parametrize("confidence", [np.ones(200), np.linspace(0.9, 1, 200)])
def test_a_head_that_is_confident_but_wrong_is_never_used(confidence):
    found = calibrate_routing(confidence, np.zeros(200), np.arange(200) % 4 > 0)

    assert found.routing_confidence is None
    assert found.sentence() == (
        "Routing finds less than a search in all verticals (R@1 0.000 routed, 0.750 in all "
        "verticals, 200 val queries): searches go through all of them."
    )


def test_queries_with_equal_confidence_are_routed_together_or_not_at_all():
    # In any order, queries that lose by routing count along with those that do not.
    for order in (slice(None), slice(None, None, -1)):
        routed = np.array([True] * 100 + [False] * 20)[order]
        assert calibrate_routing([0.7] * 120, routed, [True] * 120).routing_confidence is None


def test_all_queries_are_routed_if_all_are_wrong_either_way():
    found = calibrate_routing([0.3] * 100, [False] * 100, [False] * 100)

    assert (found.routing_confidence, found.routed_queries, found.r_at_1_routed) == (0.3, 100, 0)


@pytest.mark.parametrize("count", [0, 1, LEAST_ROUTED - 1])
def test_few_queries_are_not_enough_to_route(count):
    found = calibrate_routing([1.0] * count, [True] * count, [False] * count)

    assert found.routing_confidence is None
    assert f"{count} val quer" in found.sentence()
    assert f"{LEAST_ROUTED} are needed" in found.sentence()
    assert calibrate_routing([1.0] * 50, [True] * 50, [False] * 50).routing_confidence == 1.0


def test_calibration_agrees_with_the_evaluation(monkeypatch):
    monkeypatch.setattr(module, "LEAST_ROUTED", 1)
    found = measure_routing(EMBEDDINGS, predicted_but([4]), CONFIDENCE, IMAGES)
    rows, _ = evaluate(wrong=[4], routing_confidence=found.routing_confidence)
    pooled = {row["scope"]: row["r_at_1_pooled"] for row in rows if row["vertical"] == "ALL"}
    (merged,) = (row for row in evaluate_by("merged") if row["vertical"] == "ALL")

    assert found.val_queries == 4
    gain = found.routed_queries * (found.r_at_1_routed - found.r_at_1_merged) / 4
    assert pooled["served"] == pytest.approx(merged["r_at_1_pooled"] + gain)
    assert gain >= 0


def test_routing_is_not_measured_without_an_answered_query():
    for some in (IMAGES.only(np.arange(8) > 7), IMAGES.only(np.arange(8) >= 4)):
        size = len(some)
        found = measure_routing(np.ones([size, 2]), np.full(size, "bag"), np.ones(size), some)
        assert (found.routing_confidence, found.val_queries, found.r_at_1_merged) == (None, 0, None)
        assert found.sentence().startswith("Searches go through all verticals: 0 val queries")


def test_queries_whose_item_is_only_in_another_vertical_do_not_count():
    # Adds a query, a bag of item "c"; the gallery has only the dress of that id.
    images = EvaluationSet(
        records=np.arange(9),
        items=np.append(ITEMS, "c"),
        verticals=np.append(VERTICALS, "bag"),
        is_query=np.arange(9) >= 4,
        is_gallery=np.arange(9) < 4,
    )
    embeddings = np.append(EMBEDDINGS, EMBEDDINGS[2:3], axis=0)
    predicted, confidence = np.append(VERTICALS, "bag"), np.append(CONFIDENCE, 0.9)
    rows, routing = evaluate_routing(
        "unified", embeddings, predicted, confidence, images, routing_confidence=0, parameters=7
    )

    assert (rows, routing) == evaluate(routing_confidence=0)
    assert measure_routing(embeddings, predicted, confidence, images).val_queries == 4
