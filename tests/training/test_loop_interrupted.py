"""Trainings that are stopped, killed, or cannot continue."""

import itertools
import signal
import types

import numpy as np
import pytest
import tensorflow as tf
from tiny_loop import (
    InterruptAtStep,
    assert_kept,
    checkpoints_in,
    dropping_model,
    make_loop,
    weights,
)

from apparel_embed.common.errors import UserError
from apparel_embed.common.interruption import Stopped, stopped_by_sigterm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Result and final weights of an uninterrupted training with dropout."""
    directory = tmp_path_factory.mktemp("whole")
    loop = make_loop(directory, validate=InterruptAtStep(-1), build=dropping_model)
    return loop.run(), weights(loop)


def assert_same_end(directory, uninterrupted):
    expected, bits = uninterrupted
    loop = make_loop(directory, validate=InterruptAtStep(-1), build=dropping_model)
    result = loop.run()

    assert {**result, "trained_seconds": 0} == {**expected, "trained_seconds": 0}
    for ours, others in zip(weights(loop), bits):
        np.testing.assert_array_equal(ours, others)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, uninterrupted):
    # Validation precedes the checkpoint of the same step, so steps 3 and 4 are done twice.
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, validate=InterruptAtStep(2), build=dropping_model).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]

    assert_same_end(tmp_path, uninterrupted)


def stopped(directory, number, **options):
    """Runs a training that gets a signal during the validation of step 2; returns its exception.

    A signal at any other time also takes effect at the end of the step.
    """

    def validate(embedder):
        signal.raise_signal(number)
        return 0.5

    loop = make_loop(directory, validate=validate, **options)
    with pytest.raises(BaseException) as caught, stopped_by_sigterm():
        loop.run()
    return caught.value


def test_after_sigterm_a_training_resumes_from_that_step_to_the_same_bits(tmp_path, uninterrupted):
    error = stopped(tmp_path, signal.SIGTERM, build=dropping_model, checkpoint_every=100)

    assert isinstance(error, Stopped)
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]
    assert_same_end(tmp_path, uninterrupted)


def test_a_signal_during_a_validation_without_improvement_saves_the_step(tmp_path):
    values = iter([0.9, 0.1])

    def validate(embedder):
        value = next(values)
        if value < 0.5:
            signal.raise_signal(signal.SIGTERM)
        return value

    with pytest.raises(Stopped), stopped_by_sigterm():
        make_loop(tmp_path, validate=validate, checkpoint_every=100).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz", "step-00000004.npz"]


def test_after_ctrl_c_at_the_last_step_no_step_is_repeated(tmp_path):
    assert isinstance(stopped(tmp_path, signal.SIGINT, steps=2), KeyboardInterrupt)
    assert not (tmp_path / "model").exists()
    result = make_loop(tmp_path, steps=2, validate=InterruptAtStep(1)).run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (2, 0.5)
    assert result["trained_steps"] == 2
    assert result["last_loss"] > 0
    assert (tmp_path / "model").is_dir()


def test_the_best_weights_from_before_an_interruption_are_kept(tmp_path):
    values = iter([0.9, 0.1])
    with pytest.raises(StopIteration):
        make_loop(tmp_path, steps=8, validate=lambda embedder: next(values)).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz", "step-00000004.npz"]
    result = make_loop(tmp_path, steps=8, validate=lambda embedder: 0.2).run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (2, 0.9)
    # The best one and the newest two.
    assert checkpoints_in(tmp_path) == [f"step-0000000{step}.npz" for step in (2, 6, 8)]
    assert_kept(tmp_path, 2)


def test_seconds_before_an_interruption_count(tmp_path, monkeypatch):
    # A clock that advances by a second whenever it is read.
    clock = types.SimpleNamespace(monotonic=itertools.count(100.0).__next__)
    monkeypatch.setattr("apparel_embed.training.loop.time", clock)
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, validate=InterruptAtStep(2)).run()
    result = make_loop(tmp_path, validate=InterruptAtStep(-1)).run()

    # One second until the checkpoint of step 2, one each until those of steps 4 and 6 and the end.
    assert result["trained_seconds"] == 4


@pytest.mark.parametrize(
    ("values", "killed_at", "kept", "trained"),
    [
        # The start is validated first; the training is killed in that validation, or later.
        ([0.7, 0.6, 0.5, 0.4, 0.3], 1, 0, 6),
        ([0.7, 0.6, 0.5, 0.4, 0.3], 4, 0, 6),
        ([0.7, 0.8, 0.5, 0.4, 0.3], 3, 2, 8),
    ],
)
def test_a_killed_training_keeps_its_initial_weights_and_its_patience(
    tmp_path, values, killed_at, kept, trained
):
    options = {"steps": 14, "patience": 3, "keep_start": True, "build": dropping_model}

    def of_step(loop_of):
        """Returns a validation whose value depends only on the step."""

        def validate(embedder):
            step = loop_of[0]._progress.step
            validated.append(step)
            if len(validated) == killed_at and kill[0]:
                raise KeyboardInterrupt
            return values[step // 2]

        return validate

    ends = []
    for name, dies in (("whole", False), ("killed", True)):
        directory, validated, kill, holder = tmp_path / name, [], [dies], []
        holder.append(make_loop(directory, validate=of_step(holder), **options))
        if dies:
            with pytest.raises(KeyboardInterrupt):
                holder[0].run()
            kill[0] = False
            holder[0] = make_loop(directory, validate=of_step(holder), **options)
        result = holder[0].run()
        ends.append(({**result, "trained_seconds": 0}, weights(holder[0])))

    (result, bits), (again, others) = ends
    assert (result["kept_step"], result["trained_steps"]) == (kept, trained)
    assert again == result
    for ours, expected in zip(others, bits):
        np.testing.assert_array_equal(ours, expected)


def test_a_nan_loss_gives_an_error_with_the_step_and_the_last_checkpoint_loads(tmp_path):
    loop = make_loop(tmp_path, loss=nan_for_negative_labels, broken_from=3, log_every=100)
    # As on devices other than CPUs: it is noticed later, but before anything is saved.
    loop._check_every = 100
    with pytest.raises(UserError, match="tiny: the loss is nan at step 3; earlier checkpoints"):
        loop.run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]

    with pytest.raises(UserError, match="tiny: the loss is nan at step 5"):
        make_loop(tmp_path, loss=nan_for_negative_labels, broken_from=5, log_every=100).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz", "step-00000004.npz"]

    loop = make_loop(tmp_path, loss=nan_for_negative_labels)
    loop.run()
    assert all(np.isfinite(weight).all() for weight in weights(loop))


def test_a_non_finite_gradient_stops_the_training(tmp_path):
    def loss(labels, embeddings):
        total = tf.reduce_sum(embeddings)
        # The value is 0, where the root has no finite gradient.
        return tf.sqrt(total - tf.stop_gradient(total))

    with pytest.raises(UserError, match="tiny: the gradient is not finite at step 1; earlier"):
        make_loop(tmp_path, loss=loss).run()
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_an_error(tmp_path, monkeypatch):
    savez = np.savez

    def full(path, **arrays):
        if arrays["progress"].startswith('{"step": 4'):
            raise OSError(28, "No space left on device")
        savez(path, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match=r"step-00000004\.npz: No space left on device"):
        make_loop(tmp_path, steps=50).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]
    monkeypatch.undo()
    result = make_loop(tmp_path).run()
    assert result["kept_step"] == 6


def nan_for_negative_labels(labels, embeddings):
    return tf.where(labels[0] < 0, np.nan, tf.reduce_mean(embeddings[:, 0]))
