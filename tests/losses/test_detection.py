"""The detector's loss: assignment of garments to cells, overlaps, and learning from both."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from apparel_embed.losses.detection import assign_cells, detection_loss, generalised_overlap
from apparel_embed.models.detector import cell_centres

CENTRES = cell_centres(64)
CELL = 1 / 8
NONE = [-1.0, 0.0, 0.0, 0.0, 0.0]


def assigned(*garments):
    sees, boxes, verticals = assign_cells(tf.constant([garments]), CENTRES, CELL)
    return sees[0].numpy(), boxes[0].numpy(), verticals[0].numpy()


def test_cells_near_its_centre_are_assigned_to_a_garment():
    sees, boxes, verticals = assigned([2.0, 0.0, 0.0, 1.0, 1.0], NONE)
    # Within a fifth of the sides around 1/2: four cells each way, with centres 0.3125 to 0.6875.
    grid = np.flatnonzero(sees)
    assert sorted(set(grid // 8)) == sorted(set(grid % 8)) == [2, 3, 4, 5]
    assert set(verticals[sees]) == {2}
    np.testing.assert_array_equal(boxes[sees], np.tile([0, 0, 1, 1], [16, 1]))


def test_a_cell_is_assigned_to_the_smaller_of_two_garments():
    large, small = [0.0, 0.0, 0.0, 1.0, 1.0], [1.0, 0.4, 0.4, 0.6, 0.6]
    for garments in ((large, small), (small, large)):
        sees, _, verticals = assigned(*garments)
        seen = np.where(sees, verticals, -1).reshape(8, 8)[2:6, 2:6]
        assert seen.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 0.99), st.floats(0, 0.99), st.floats(0.01, 1), st.floats(0.01, 1))
def test_every_garment_has_a_cell(left, top, width, height):
    box = [left, top, min(left + width, 1.0), min(top + height, 1.0)]
    sees, _, _ = assigned([0.0, *box])
    assert sees.any()


def test_padding_rows_have_no_cell():
    sees, _, _ = assigned(NONE, [-1.0, 0.2, 0.2, 0.8, 0.8])
    assert not sees.any()


def test_overlaps_match_the_definition():
    boxes = tf.constant([[0.0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]])
    others = tf.constant([[1.0, 1, 3, 3], [0, 0, 1, 1], [2, 0, 3, 1]])
    # The areas of the smallest boxes around both are 9, 1 and 3.
    expected = [1 / 7 - 2 / 9, 1, -1 / 3]
    np.testing.assert_allclose(generalised_overlap(boxes, others), expected, atol=1e-6)


def loss_of(boxes, logits, garments):
    return float(detection_loss(tf.constant([garments]), boxes[None], logits[None], CENTRES))


def perfect(garments, verticals=3):
    sees, boxes, kinds = assigned(*garments)
    boxes = np.where(sees[:, None], boxes, [0.0, 0.0, 1.0, 1.0]).astype(np.float32)
    logits = np.full([len(CENTRES), verticals], -20.0, np.float32)
    logits[np.flatnonzero(sees), kinds[sees]] = 20.0
    return boxes, logits


def test_the_loss_is_zero_for_a_perfect_output_only():
    garments = [[0.0, 0.1, 0.1, 0.4, 0.5], [2.0, 0.5, 0.4, 0.9, 0.9], NONE]
    boxes, logits = perfect(garments)
    assert loss_of(boxes, logits, garments) == pytest.approx(0.0, abs=1e-5)
    assert loss_of(boxes, -logits, garments) > 1.0
    assert loss_of(boxes * 0.5, logits, garments) > 0.5
    assert loss_of(boxes, logits, [[1.0, *one[1:]] if one[0] == 0 else one for one in garments]) > 1


def test_an_image_without_garments_has_a_loss():
    boxes, logits = perfect([NONE])
    assert loss_of(boxes, logits, [NONE]) == pytest.approx(0.0, abs=1e-5)
    assert loss_of(boxes, logits * 0.0, [NONE]) > 1.0


def test_the_gradient_leads_to_the_garment():
    garments = [[1.0, 0.2, 0.3, 0.6, 0.9]]
    boxes = tf.Variable(tf.concat([CENTRES - 0.1, CENTRES + 0.1], axis=1))
    logits = tf.Variable(tf.fill([len(CENTRES), 3], -2.0))
    optimizer = tf.keras.optimizers.Adam(0.05)
    optimizer.build([boxes, logits])

    @tf.function
    def learn():
        with tf.GradientTape() as tape:
            loss = detection_loss(tf.constant([garments]), boxes[None], logits[None], CENTRES)
        optimizer.apply_gradients(zip(tape.gradient(loss, [boxes, logits]), [boxes, logits]))

    for _ in range(200):
        learn()
    sees, _, _ = assigned(*garments)
    best = int(tf.argmax(tf.reduce_max(logits, axis=1)))
    assert sees[best]
    np.testing.assert_allclose(boxes[best], garments[0][1:], atol=0.03)
    assert int(tf.argmax(logits[best])) == 1
