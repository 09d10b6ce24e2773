"""Comparisons of a student with an earlier one, on constructed embeddings."""

import numpy as np
import pytest

from apparel_embed.evaluation.growth import cost_ratio, measure_growth, render_growth
from apparel_embed.evaluation.split import EvaluationSet
from apparel_embed.evaluation.training_cost import TrainingCost

ITEMS = 6
VERTICALS = ("bag", "dress", "hat")


@pytest.fixture
def images():
    """Six items with two images each in every vertical."""
    count = len(VERTICALS) * ITEMS * 2
    everywhere = np.ones(count, bool)
    return EvaluationSet(
        np.arange(count),
        np.repeat(np.arange(count // 2), 2).astype(str),
        np.repeat(VERTICALS, ITEMS * 2),
        everywhere,
        everywhere,
    )


def right():
    """Returns embeddings that find every item."""
    return np.repeat(np.eye(len(VERTICALS) * ITEMS, dtype=np.float32), 2, axis=0)


def wrong(embeddings, *verticals):
    """Returns embeddings changed so that images of some verticals find a neighbouring item."""
    found = embeddings.copy()
    for vertical in verticals:
        start = VERTICALS.index(vertical) * ITEMS * 2
        found[start : start + 2 * ITEMS] = np.roll(found[start : start + 2 * ITEMS], 1, axis=0)
    return found


def measure(images, old, new, full=None, old_verticals=("bag", "dress")):
    return measure_growth(images, old=old, new=new, full=full, old_verticals=old_verticals, seed=0)


def test_equal_students_have_no_differences(images):
    found = measure(images, right(), right(), right())

    for name in ("old_on_old", "new_on_old", "new_on_new"):
        assert (found[name]["r_at_1"], found[name]["queries"]) == (1, 24), name
    for name in ("new_on_old_difference", "old_verticals_change", "new_vertical_difference"):
        assert (found[name]["difference"], found[name]["is_clear"]) == (0, False), name


def test_old_and_new_verticals_are_measured_separately(images):
    found = measure(images, right(), wrong(right(), "dress", "hat"), right())

    # Each image equals one of a neighbouring item, so no image finds its own item.
    by_vertical = found["old_verticals_change"]["by_vertical"]
    changes = {change["vertical"]: change["difference"] for change in by_vertical}
    assert changes["bag"] == 0
    assert changes["dress"] == -1
    assert found["old_verticals_change"]["difference"] == -0.5
    assert found["old_verticals_change"]["is_clear"]
    assert found["new_vertical_difference"]["difference"] == -1
    assert found["old_on_old"]["r_at_1"] == 1
    assert found["new_on_new"]["r_at_1"] == 0.5


def test_queries_in_one_space_find_nothing_in_another(images):
    other = np.roll(right(), 2, axis=1)
    found = measure(images, right(), other)

    assert found["new_on_new"]["r_at_1"] == found["old_on_old"]["r_at_1"] == 1
    assert found["new_on_old"]["r_at_1"] == 0
    assert found["new_on_old_difference"]["difference"] == -1


@pytest.mark.parametrize("old_verticals", [("hat",), VERTICALS])
def test_new_verticals_are_compared_only_with_a_full_run(images, old_verticals):
    assert measure(images, right(), right(), None)["new_vertical_difference"] is None
    found = measure(images, right(), right(), right(), old_verticals)
    assert (found["new_vertical_difference"] is None) == (old_verticals == VERTICALS)


def test_old_verticals_without_images_are_reported_as_not_measured(images):
    found = measure(images, right(), right(), right(), ("shoe",))
    assert found["old_on_old"] is None
    assert found["old_verticals_change"] is None

    cost = cost_ratio(
        TrainingCost("", 2, 30, 15.0, 1), TrainingCost("", 9, 100, 60.0, 1), "runs/full"
    )
    text = render_growth({**found, "old_model": "runs/old/student", "cost_ratio": cost})
    assert "old_verticals_change: not measured" in text
    assert "old_on_old: -" in text
    assert "0.25 of the training seconds and 0.30 of the steps of runs/full" in text
