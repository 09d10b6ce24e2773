import io
import sys

import numpy as np
import pytest
import tensorflow as tf
from tiny_loop import make_loop, weights

pytestmark = pytest.mark.slow


def test_the_same_seed_gives_the_same_bits(tmp_path):
    first, second = make_loop(tmp_path / "a"), make_loop(tmp_path / "b")
    results = first.run(), second.run()

    assert {**results[0], "trained_seconds": 0} == {**results[1], "trained_seconds": 0}
    for ours, expected in zip(weights(first), weights(second)):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("frozen_steps", [0, 2])
def test_a_frozen_backbone_keeps_weights_and_statistics_bit_for_bit(tmp_path, frozen_steps):
    loop = make_loop(tmp_path, steps=5, train_backbone=False, frozen_steps=frozen_steps)
    backbone = loop.model.get_layer("backbone")
    before = {one.name: one.numpy() for one in backbone.weights}
    head = loop.model.get_layer("projection").get_weights()
    loop.run()

    assert sum("moving_" in name for name in before) == 14
    for variable in backbone.weights:
        np.testing.assert_array_equal(variable.numpy(), before[variable.name])
    kernel, bias = loop.model.get_layer("projection").get_weights()
    assert not np.array_equal(kernel, head[0])
    assert not np.array_equal(bias, head[1])


def test_frozen_steps_do_not_change_the_backbone(tmp_path):
    loop = make_loop(tmp_path, steps=3, frozen_steps=3)
    before = loop.model.get_layer("backbone").get_weights()
    head = loop.model.get_layer("projection").get_weights()
    loop.run()

    for ours, expected in zip(loop.model.get_layer("backbone").get_weights(), before):
        np.testing.assert_array_equal(ours, expected)
    assert not np.array_equal(loop.model.get_layer("projection").get_weights()[0], head[0])


def test_after_frozen_steps_the_backbone_is_trained(tmp_path):
    loop = make_loop(tmp_path, steps=4, frozen_steps=2)
    before = loop.model.get_layer("backbone").get_weights()
    loop.run()

    assert not np.array_equal(loop.model.get_layer("backbone").get_weights()[0], before[0])


def test_scalars_are_written_for_tensorboard(tmp_path):
    make_loop(tmp_path, validate=lambda embedder: 0.25).run()

    found = {}
    for path in (tmp_path / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    assert found["loss"] == [1, 2, 3, 4, 5, 6]
    assert found["validation/r_at_1"] == [2, 4, 6]
    assert "learning_rate" in found


def test_a_terminal_shows_images_rate_loss_and_best_metric(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    make_loop(tmp_path, validate=lambda embedder: 0.25).run()

    end = terminal.getvalue().split("\r")[-1]
    assert "tiny" in end
    assert "48/48" in end
    assert "images/s" in end
    assert "best_r_at_1=0.250" in end
