import numpy as np
import pytest

from apparel_embed.evaluation.protocol import EvaluationSet, evaluate_model
from apparel_embed.evaluation.routing import evaluate_routing
from apparel_embed.evaluation.table import render_routing

# Two verticals of two items; each query lies on its own item's gallery picture, but for the last.
ITEMS = np.array(["a", "b", "c", "d"] * 2)
VERTICALS = np.array(["bag", "bag", "dress", "dress"] * 2)
ANGLES = np.deg2rad([0, 90, 0, 90, 1, 91, 1, 2])
EMBEDDINGS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
PICTURES = EvaluationSet(
    records=np.arange(8),
    items=ITEMS,
    verticals=VERTICALS,
    is_query=np.arange(8) >= 4,
    is_gallery=np.arange(8) < 4,
)


def evaluate(*, wrong=()):
    predicted = VERTICALS.astype(object).copy()
    for query in wrong:
        predicted[query] = "dress" if predicted[query] == "bag" else "bag"
    return evaluate_routing("unified", EMBEDDINGS, predicted, PICTURES, parameters=7)


def by_vertical(rows, field="r_at_1"):
    return {row["vertical"]: row[field] for row in rows}


def test_with_every_vertical_right_it_is_the_search_within():
    rows, routing = evaluate()
    within = evaluate_model(
        "unified", EMBEDDINGS, PICTURES, scopes=["within"], parameters=7, models_to_deploy=1
    )

    assert [{**row, "scope": "within"} for row in rows] == within
    assert {row["scope"] for row in rows} == {"routed"}
    assert by_vertical(rows) == {"bag": 1.0, "dress": 0.5, "ALL": 0.75}
    assert (routing["accuracy"], routing["queries"]) == (1.0, 4)
    assert routing["r_at_1_difference"]["difference"] == 0


def test_a_query_that_is_sent_elsewhere_finds_nothing():
    rows, routing = evaluate(wrong=[4])

    assert by_vertical(rows) == {"bag": 0.5, "dress": 0.5, "ALL": 0.5}
    assert by_vertical(rows, "r_at_20") == {"bag": 0.5, "dress": 1.0, "ALL": 0.75}
    assert by_vertical(rows, "map_at_r")["bag"] == 0.5
    assert by_vertical(routing["verticals"], "accuracy") == {"bag": 0.5, "dress": 1.0}
    assert routing["accuracy"] == 0.75
    assert routing["accuracy_low"] <= 0.75 <= routing["accuracy_high"]
    assert routing["r_at_1_difference"]["difference"] == -0.25


def test_what_was_wrong_already_costs_nothing():
    rows, routing = evaluate(wrong=[7])

    assert by_vertical(rows)["ALL"] == 0.75
    assert routing["accuracy"] == 0.75


def test_what_is_predicted_for_gallery_pictures_makes_no_difference():
    assert evaluate(wrong=[0, 1, 2, 3]) == evaluate()


def test_one_line_tells_it():
    rows, routing = evaluate(wrong=[4])
    summary = {"rows": rows, "routing": [routing]}
    (_, line) = render_routing(summary)

    assert "R@1 0.500" in line
    assert "-0.250" in line
    assert "right for 0.750" in line
    assert render_routing({"rows": rows}) == []


@pytest.mark.parametrize("field", ["parameters", "models_to_deploy"])
def test_rows_keep_the_contract(field):
    rows, _ = evaluate()
    assert {row[field] for row in rows} == {{"parameters": 7, "models_to_deploy": 1}[field]}
