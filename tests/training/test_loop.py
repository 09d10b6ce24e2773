import dataclasses
import io
import itertools
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.errors import UserError
from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.embedding import ModelConfig, build_embedding_model, load_embedding_model
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.optimization import OptimizationConfig, make_optimizer
from apparel_embed.training.strategy import make_strategy, start_afresh

MODEL = ModelConfig(image_size=32, embedding_dim=8)


def batches_of(batch_size, steps):
    """Four items that differ by brightness and colour; a batch is a function of the step."""

    def one(step):
        labels = tf.range(batch_size, dtype=tf.int32) // 2
        seed = tf.stack([step, step])
        noise = tf.random.stateless_uniform([batch_size, 32, 32, 3], seed, 0.0, 60.0)
        base = tf.cast(labels, tf.float32)[:, None, None, None] * tf.constant([40.0, 10.0, 25.0])
        return base + noise, labels

    return lambda first: tf.data.Dataset.range(first, steps).map(one)


def make_loop(directory, *, steps=6, strategy="one", validate=None, loss=None, **optimization):
    start_afresh(3)
    return TrainingLoop(
        build_model=lambda: build_embedding_model(MODEL),
        model_config=MODEL,
        batches=batches_of(8, steps),
        loss=loss or TripletSemiHardLoss(0.3),
        validate=validate,
        optimization=OptimizationConfig(steps=steps, seed=3, **optimization),
        config=LoopConfig(validate_every=2, checkpoint_every=2, log_every=1),
        strategy=make_strategy(strategy),
        directory=directory,
        what="tiny",
    )


def weights(loop):
    return [variable.numpy() for variable in loop.model.variables]


class InterruptAtStep:
    """A loss that fails like a killed process at the given call of the traced step."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def __call__(self, embedder):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return 0.5


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    whole = make_loop(tmp_path / "whole", validate=InterruptAtStep(-1))
    whole.run()

    # Validation comes before the checkpoint of the same step: steps 3 and 4 are done twice.
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path / "cut", validate=InterruptAtStep(2)).run()
    cut = make_loop(tmp_path / "cut", validate=InterruptAtStep(-1))
    cut.run()

    for ours, expected in zip(weights(cut), weights(whole)):
        np.testing.assert_array_equal(ours, expected)


def test_seconds_before_an_interruption_count(tmp_path, monkeypatch):
    # A clock that goes on by a second whenever somebody looks at it.
    clock = types.SimpleNamespace(monotonic=itertools.count(100.0).__next__)
    monkeypatch.setattr("apparel_embed.training.loop.time", clock)
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, validate=InterruptAtStep(2)).run()
    result = make_loop(tmp_path, validate=InterruptAtStep(-1)).run()

    # One to the checkpoint of step 2; then one to that of step 4 and one to the end.
    assert result["trained_seconds"] == 3


def test_the_same_seed_gives_the_same_bits_and_checkpoints_go_when_done(tmp_path):
    first, second = make_loop(tmp_path / "a"), make_loop(tmp_path / "b")
    results = first.run(), second.run()

    assert {**results[0], "trained_seconds": 0} == {**results[1], "trained_seconds": 0}
    for ours, expected in zip(weights(first), weights(second)):
        np.testing.assert_array_equal(ours, expected)
    assert not (tmp_path / "a/checkpoints").exists()


def test_the_best_validation_is_kept_and_of_equals_the_later(tmp_path):
    values = iter([0.4, 0.7, 0.7, 0.2])
    snapshots = {}

    def validate(embedder):
        snapshots[len(snapshots)] = loop.model.get_weights()
        return next(values)

    loop = make_loop(tmp_path, steps=8, validate=validate)
    result = loop.run()

    assert result["kept_step"] == 6
    assert result["validation_r_at_1"] == 0.7
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), snapshots[2]):
        np.testing.assert_array_equal(ours, expected)


def test_without_validation_the_last_weights_are_kept(tmp_path):
    loop = make_loop(tmp_path, steps=5)
    result = loop.run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (5, None)
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), loop.model.get_weights()):
        np.testing.assert_array_equal(ours, expected)


def test_frozen_steps_leave_the_backbone_as_it_was(tmp_path):
    loop = make_loop(tmp_path, steps=3, frozen_steps=3)
    before = loop.model.get_layer("backbone").get_weights()
    head = loop.model.get_layer("projection").get_weights()
    loop.run()

    for ours, expected in zip(loop.model.get_layer("backbone").get_weights(), before):
        np.testing.assert_array_equal(ours, expected)
    assert not np.array_equal(loop.model.get_layer("projection").get_weights()[0], head[0])


def test_after_frozen_steps_the_backbone_moves(tmp_path):
    loop = make_loop(tmp_path, steps=4, frozen_steps=2)
    before = loop.model.get_layer("backbone").get_weights()
    loop.run()

    assert not np.array_equal(loop.model.get_layer("backbone").get_weights()[0], before[0])


def test_a_loss_that_is_no_number_stops_at_once_and_names_the_step(tmp_path):
    with pytest.raises(UserError, match="tiny: the loss is nan at step 1"):
        make_loop(
            tmp_path, loss=lambda labels, embeddings: tf.reduce_sum(embeddings) * float("nan")
        ).run()


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


def test_a_terminal_sees_images_rate_loss_and_best(tmp_path, monkeypatch):
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


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_learning_rate_rises_linearly_and_falls_along_a_cosine(optimizer):
    config = OptimizationConfig(
        steps=100, optimizer=optimizer, learning_rate=0.2, warmup_fraction=0.1
    )
    schedule = make_optimizer(config)._learning_rate
    rates = [float(schedule(step)) for step in (0, 5, 10, 55, 100)]

    np.testing.assert_allclose(rates, [0.0, 0.1, 0.2, 0.1, 0.0], atol=1e-6)


def test_without_warm_up_the_learning_rate_starts_at_its_peak():
    config = OptimizationConfig(steps=10, learning_rate=0.2, warmup_fraction=0.0)

    assert float(make_optimizer(config)._learning_rate(0)) == pytest.approx(0.2)


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LoopConfig().log_every = 3
