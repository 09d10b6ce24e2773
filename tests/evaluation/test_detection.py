"""Average precision against hand-computed figures, matches, and thresholds."""

import numpy as np
import pytest

from apparel_embed.data.photographs import Garments
from apparel_embed.evaluation.detection import (
    Found,
    average_precision,
    best_threshold,
    box_overlaps,
    boxes_to_draw,
    match_garments,
)

LEFT, RIGHT, LOW = (0.0, 0.0, 0.4, 0.4), (0.5, 0.0, 0.9, 0.4), (0.0, 0.5, 0.4, 0.9)


def truth(*rows):
    photographs, verticals, boxes = zip(*rows) if rows else ((), (), np.zeros([0, 4]))
    count = len(photographs)
    return Garments(
        np.array(photographs, np.int64),
        np.array(boxes, np.float32),
        np.array(verticals, object),
        np.array([f"item{number}" for number in range(count)], object),
        np.array(["test"] * count, object),
    )


def found(*rows):
    photographs, verticals, boxes, scores = zip(*rows) if rows else ((), (), np.zeros([0, 4]), ())
    return Found(
        np.array(photographs, np.int64),
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(verticals, object),
    )


def test_perfect_detections_have_a_precision_of_one_in_every_vertical():
    garments = truth((0, "bag", LEFT), (0, "dress", RIGHT), (1, "bag", LOW))
    right = found((0, "bag", LEFT, 0.9), (0, "dress", RIGHT, 0.8), (1, "bag", LOW, 0.7))
    measured = average_precision(garments, right)
    assert (measured.ap50, measured.ap) == (1.0, 1.0)
    assert set(measured.by_vertical) == {"bag", "dress"}


def test_a_false_alarm_and_a_miss_lower_the_precision_as_computed_by_hand():
    garments = truth((0, "bag", LEFT), (1, "bag", LEFT))
    one = found((0, "bag", RIGHT, 0.9), (0, "bag", LEFT, 0.8))
    # Precision is 1/2 up to a recall of 1/2, which takes 51 of COCO's 101 steps, and then 0.
    assert average_precision(garments, one).ap50 == pytest.approx(0.5 * 51 / 101)


def test_a_loose_box_counts_only_at_small_overlaps():
    garments = truth((0, "bag", (0.0, 0.0, 0.5, 0.5)))
    # IoU 0.72: right at 0.5, 0.55, 0.6, 0.65 and 0.7.
    measured = average_precision(garments, found((0, "bag", (0.0, 0.0, 0.5, 0.36), 0.9)))
    assert measured.ap50 == pytest.approx(1.0)
    assert measured.ap == pytest.approx(0.5)


def test_a_wrong_vertical_is_a_miss_and_verticals_without_garments_are_left_out():
    garments = truth((0, "bag", LEFT))
    measured = average_precision(garments, found((0, "dress", LEFT, 0.9)))
    assert (measured.ap50, list(measured.by_vertical)) == (0.0, ["bag"])


def test_photographs_without_detections_or_without_garments():
    assert average_precision(truth((0, "bag", LEFT)), found()).ap50 == 0.0
    assert average_precision(truth(), found((0, "bag", LEFT, 0.9))).by_vertical == {}


def test_intervals_contain_the_figure_and_depend_only_on_the_seed():
    rows = [(number, "bag", LEFT) for number in range(40)]
    right = [(number, "bag", LEFT, 0.9) for number in range(30)]
    wrong = [(number, "bag", RIGHT, 0.8) for number in range(30, 40)]
    one, other = (average_precision(truth(*rows), found(*right, *wrong), seed=3) for _ in range(2))
    assert one == other
    assert one.ap50_low is not None and one.ap50_high is not None
    assert 0.55 < one.ap50_low < one.ap50 < one.ap50_high < 0.95
    assert one.by_vertical["bag"].ap50_low == one.ap50_low


def test_the_highest_score_takes_the_garment_and_none_is_taken_twice():
    garments = truth((0, "bag", LEFT), (0, "dress", RIGHT), (1, "bag", LEFT))
    detections = found(
        (0, "bag", LEFT, 0.5), (0, "top", LEFT, 0.9), (0, "dress", LOW, 0.8), (2, "bag", LEFT, 0.9)
    )
    assert match_garments(garments, detections).tolist() == [1, -1, -1]


def test_overlaps_of_all_pairs():
    overlaps = box_overlaps(np.array([LEFT, RIGHT]), np.array([LEFT, (0.0, 0.0, 0.4, 0.2)]))
    np.testing.assert_allclose(overlaps, [[1, 0.5], [0, 0]], atol=1e-7)
    assert box_overlaps(np.zeros([0, 4]), np.array([LEFT])).shape == (0, 1)


def test_the_threshold_separates_right_from_wrong_detections():
    garments = truth((0, "bag", LEFT), (0, "dress", RIGHT))
    detections = found(
        (0, "bag", LEFT, 0.8), (0, "dress", RIGHT, 0.7), (0, "bag", LOW, 0.3), (1, "bag", LOW, 0.2)
    )
    assert 0.3 < best_threshold(garments, detections) <= 0.7
    assert best_threshold(garments, found()) >= 0.05


def test_colours_of_boxes_show_right_and_wrong_detections():
    garments = truth((0, "bag", LEFT), (1, "dress", RIGHT))
    detections = found((0, "bag", LEFT, 0.8), (0, "bag", LOW, 0.7), (1, "top", RIGHT, 0.6))
    first, second = boxes_to_draw(garments, detections, 2)
    assert [box.colour for box in first] == ["white", "lime", "red"]
    assert [(box.label, box.colour) for box in second] == [("", "white"), ("top 0.60", "red")]
