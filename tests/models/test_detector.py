"""The detector: output of its cells, detections, and writing and reading."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.models.config import DetectorConfig
from apparel_embed.models.detector import (
    build_detector,
    cell_centres,
    detections_of,
    find_garments,
    load_detector,
    save_detector,
    split_cells,
    with_one_vertical,
)

CONFIG = DetectorConfig(verticals=("bag", "dress", "top"), image_size=64, most_garments=3)
CELLS = 64


def raw_output(*seen):
    """Returns a raw output with the garments (cell, vertical, logit, half side) only."""
    raw = np.zeros([1, CELLS, 7], np.float32)
    raw[..., 4:] = -20.0
    for cell, vertical, logit, reach in seen:
        raw[0, cell, :4] = np.log(reach * 6)
        raw[0, cell, 4 + vertical] = logit
    return tf.constant(raw)


def test_cell_centres_are_ordered_row_by_row():
    centres = cell_centres(64).numpy()
    assert centres.shape == (CELLS, 2)
    np.testing.assert_allclose(centres[[0, 1, 8, 63]] * 64, [[4, 4], [12, 4], [4, 12], [60, 60]])


def test_a_zero_output_is_a_box_with_a_third_of_the_squares_side_around_the_centre():
    centres = cell_centres(64)
    boxes, logits = split_cells(tf.zeros([1, CELLS, 7]), centres)
    np.testing.assert_allclose(boxes[0, :, :2], centres - 1 / 6, atol=1e-6)
    np.testing.assert_allclose(boxes[0, :, 2:], centres + 1 / 6, atol=1e-6)
    assert logits.shape == (1, CELLS, 3)


def test_detections_are_sorted_by_score_and_those_below_the_threshold_are_dropped():
    raw = raw_output((9, 1, 2.0, 0.1), (54, 0, 4.0, 0.125), (30, 2, -1.0, 0.1))
    found = detections_of(raw, CONFIG, least=0.5)
    np.testing.assert_allclose(
        found.scores[0], [1 / (1 + np.exp(-4)), 1 / (1 + np.exp(-2)), 0], 1e-5
    )
    assert found.verticals[0].numpy().tolist() == [0, 1, 0]
    centre = cell_centres(64)[54].numpy()
    np.testing.assert_allclose(found.boxes[0, 0], [*(centre - 0.125), *(centre + 0.125)], 1e-5)
    np.testing.assert_array_equal(found.boxes[0, 2], 0)


def test_two_boxes_of_a_vertical_are_merged_but_not_those_of_two_verticals():
    raw = raw_output((27, 0, 3.0, 0.3), (28, 0, 2.0, 0.3), (28, 1, 1.0, 0.3))
    found = detections_of(raw, CONFIG, least=0.5)
    assert found.verticals[0].numpy()[:2].tolist() == [0, 1]
    assert (found.scores[0].numpy() > 0).tolist() == [True, True, False]


def test_a_garment_has_only_its_most_likely_vertical():
    raw = raw_output((27, 0, 3.0, 0.3), (27, 1, 1.0, 0.3), (30, 1, 0.5, 0.3), (36, 2, 2.0, 0.1))
    config = dataclasses.replace(CONFIG, most_garments=4)
    apart = detections_of(raw, config, least=0.5)
    assert apart.verticals[0].numpy().tolist() == [0, 2, 1, 1]
    found = with_one_vertical(apart)
    # The bag is not also a dress; a garment on it, or overlapping less, is a separate garment.
    assert found.verticals[0].numpy().tolist() == [0, 2, 1, 0]
    np.testing.assert_array_equal(found.boxes[0, :3], tf.gather(apart.boxes[0], [0, 1, 3]))
    np.testing.assert_array_equal(found.scores[0, :3], tf.gather(apart.scores[0], [0, 1, 3]))
    assert not found.boxes[0, 3].numpy().any()
    assert found.scores[0, 3] == 0


def test_boxes_are_clipped_at_the_edge():
    found = detections_of(raw_output((0, 0, 3.0, 0.4)), CONFIG, least=0.5)
    np.testing.assert_array_equal(found.boxes[0, 0, :2], 0)
    assert found.boxes[0, 0, 2] < 0.5


@pytest.mark.parametrize("backbone", ["small_cnn", "efficientnet_lite_b0"])
@pytest.mark.parametrize("size", [64, 88])
def test_a_saved_and_loaded_detector_has_the_same_output(tmp_path, backbone, size):
    config = dataclasses.replace(CONFIG, backbone=backbone, image_size=size, score_threshold=0.42)
    model = build_detector(config)
    images = tf.random.stateless_uniform([2, size, size, 3], [0, 1], 0, 255)
    assert model(images).shape == (2, (size // 8) ** 2, 7)
    save_detector(tmp_path, model, config)
    loaded, read = load_detector(tmp_path)
    assert read == config
    np.testing.assert_array_equal(loaded(images), model(images))
    one = find_garments(loaded, read, tf.cast(images, tf.uint8))
    assert one.boxes.shape == (2, 3, 4)


def test_an_untrained_detector_finds_nothing():
    model = build_detector(CONFIG)
    found = find_garments(model, CONFIG, tf.zeros([1, 64, 64, 3], tf.uint8))
    assert not found.scores.numpy().any()


def test_a_missing_broken_or_unknown_detector_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected a detector, but detector.json is missing"):
        load_detector(tmp_path)
    save_detector(tmp_path, build_detector(CONFIG), CONFIG)
    (tmp_path / "detector.weights.h5").write_bytes(b"broken")
    with pytest.raises(UserError, match="the detector cannot be read"):
        load_detector(tmp_path)
    with pytest.raises(UserError, match="backbone 'none': expected one of small_cnn"):
        build_detector(dataclasses.replace(CONFIG, backbone="none"))
