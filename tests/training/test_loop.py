import dataclasses
import functools
import io
import itertools
import signal
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.interruption import Stopped, stopped_by_sigterm
from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.execution import reset_and_seed
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.optimization import make_optimizer
from apparel_embed.training.settings import FEW_PICTURES, OptimizationConfig
from apparel_embed.training.strategy import make_strategy
from apparel_embed.training.validation import Validation

pytestmark = pytest.mark.slow

MODEL = ModelConfig(image_size=32, embedding_dim=8)


def batches_of(batch_size, steps, broken_from=None):
    """Four items that differ by brightness and colour; a batch is a function of the step.

    From step `broken_from` on (counted from 1) labels are negative.
    """

    def one(step):
        labels = tf.range(batch_size, dtype=tf.int32) // 2
        seed = tf.stack([step, step])
        noise = tf.random.stateless_uniform([batch_size, 32, 32, 3], seed, 0.0, 60.0)
        base = tf.cast(labels, tf.float32)[:, None, None, None] * tf.constant([40.0, 10.0, 25.0])
        if broken_from is not None:
            labels = tf.where(step + 1 >= broken_from, -1, labels)
        return base + noise, labels

    return lambda first: tf.data.Dataset.range(first, steps).map(one)


def dropping_model():
    """The model with dropout before its projection."""
    model = build_embedding_model(MODEL)
    projection, embedding = model.get_layer("projection"), model.get_layer("embedding")
    x = tf.keras.layers.Dropout(0.5)(model.get_layer("pooling").output)
    return tf.keras.Model(model.input, embedding(projection(x)))


def make_loop(
    directory,
    *,
    steps=6,
    strategy="one",
    validate=None,
    loss=None,
    build=lambda: build_embedding_model(MODEL),
    broken_from=None,
    log_every=1,
    checkpoint_every=2,
    validate_every=2,
    patience=0,
    keep_start=False,
    error=lambda metric: 0.0,
    prefer=lambda embedder: 0.0,
    **optimization,
):
    reset_and_seed(3)
    return TrainingLoop(
        build_model=build,
        save=functools.partial(save_embedding_model, config=MODEL),
        batches=batches_of(8, steps, broken_from),
        loss=loss or TripletSemiHardLoss(0.3),
        validation=Validation(validate, error, prefer) if validate else None,
        optimization=OptimizationConfig(steps=steps, seed=3, **optimization),
        config=LoopConfig(
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            log_every=log_every,
            patience=patience,
        ),
        strategy=make_strategy(strategy),
        directory=directory,
        what="tiny",
        keep_start=keep_start,
    )


def weights(loop):
    return [variable.numpy() for variable in loop.model.variables]


class InterruptAtStep:
    """A validation that fails like a killed process at the given call."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def __call__(self, embedder):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return 0.5


def checkpoints_in(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Result and final weights of a training with dropout that nothing has interrupted."""
    directory = tmp_path_factory.mktemp("whole")
    loop = make_loop(directory, validate=InterruptAtStep(-1), build=dropping_model)
    return loop.run(), weights(loop)


def assert_ends_alike(directory, uninterrupted):
    expected, bits = uninterrupted
    loop = make_loop(directory, validate=InterruptAtStep(-1), build=dropping_model)
    result = loop.run()

    assert {**result, "trained_seconds": 0} == {**expected, "trained_seconds": 0}
    for ours, others in zip(weights(loop), bits):
        np.testing.assert_array_equal(ours, others)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, uninterrupted):
    # Validation comes before the checkpoint of the same step: steps 3 and 4 are done twice.
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, validate=InterruptAtStep(2), build=dropping_model).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]

    assert_ends_alike(tmp_path, uninterrupted)


def stopped(directory, number, **options):
    """Runs a training that gets a signal during the validation of step 2; returns what it raises.

    Wherever a signal comes, it waits for the end of the step.
    """

    def validate(embedder):
        signal.raise_signal(number)
        return 0.5

    loop = make_loop(directory, validate=validate, **options)
    with pytest.raises(BaseException) as caught, stopped_by_sigterm():
        loop.run()
    return caught.value


def test_after_sigterm_a_training_goes_on_from_that_step_to_the_same_bits(tmp_path, uninterrupted):
    error = stopped(tmp_path, signal.SIGTERM, build=dropping_model, checkpoint_every=100)

    assert isinstance(error, Stopped)
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]
    assert_ends_alike(tmp_path, uninterrupted)


def test_a_signal_during_a_validation_that_finds_nothing_better_saves_the_step_too(tmp_path):
    values = iter([0.9, 0.1])

    def validate(embedder):
        value = next(values)
        if value < 0.5:
            signal.raise_signal(signal.SIGTERM)
        return value

    with pytest.raises(Stopped), stopped_by_sigterm():
        make_loop(tmp_path, validate=validate, checkpoint_every=100).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz", "step-00000004.npz"]


def test_ctrl_c_at_the_last_step_leaves_no_step_to_be_done_again(tmp_path):
    assert isinstance(stopped(tmp_path, signal.SIGINT, steps=2), KeyboardInterrupt)
    assert not (tmp_path / "model").exists()
    result = make_loop(tmp_path, steps=2, validate=InterruptAtStep(1)).run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (2, 0.5)
    assert result["trained_steps"] == 2
    assert result["last_loss"] > 0
    assert (tmp_path / "model").is_dir()


def test_best_weights_from_before_an_interruption_are_the_ones_kept(tmp_path):
    values = iter([0.9, 0.1])
    with pytest.raises(StopIteration):
        make_loop(tmp_path, steps=8, validate=lambda embedder: next(values)).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz", "step-00000004.npz"]
    result = make_loop(tmp_path, steps=8, validate=lambda embedder: 0.2).run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (2, 0.9)
    # The best one, and the newest two.
    assert checkpoints_in(tmp_path) == [f"step-0000000{step}.npz" for step in (2, 6, 8)]
    kept, _ = load_embedding_model(tmp_path / "model")
    with np.load(tmp_path / "checkpoints/step-00000002.npz") as file:
        best = [file[name] for name in file.files if name.startswith("model/")]
    described = [
        sorted((one.shape, one.sum()) for one in some) for some in (kept.get_weights(), best)
    ]
    assert described[0] == described[1]


def test_seconds_before_an_interruption_count(tmp_path, monkeypatch):
    # A clock that goes on by a second whenever somebody looks at it.
    clock = types.SimpleNamespace(monotonic=itertools.count(100.0).__next__)
    monkeypatch.setattr("apparel_embed.training.loop.time", clock)
    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path, validate=InterruptAtStep(2)).run()
    result = make_loop(tmp_path, validate=InterruptAtStep(-1)).run()

    # One to the checkpoint of step 2; then one each to those of steps 4 and 6, one to the end.
    assert result["trained_seconds"] == 4


def test_the_same_seed_gives_the_same_bits(tmp_path):
    first, second = make_loop(tmp_path / "a"), make_loop(tmp_path / "b")
    results = first.run(), second.run()

    assert {**results[0], "trained_seconds": 0} == {**results[1], "trained_seconds": 0}
    for ours, expected in zip(weights(first), weights(second)):
        np.testing.assert_array_equal(ours, expected)


def test_the_best_validation_is_kept_and_of_equals_the_later(tmp_path):
    values = iter([0.4, 0.7, 0.7, 0.2])
    snapshots = {}

    def validate(embedder):
        snapshots[len(snapshots)] = loop.model.get_weights()
        return next(values)

    loop = make_loop(tmp_path, steps=8, validate=validate)
    result = loop.run()

    assert result["kept_step"] == 6
    assert checkpoints_in(tmp_path) == ["step-00000006.npz", "step-00000008.npz"]
    assert result["validation_r_at_1"] == 0.7
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), snapshots[2]):
        np.testing.assert_array_equal(ours, expected)


def test_without_validation_the_last_weights_are_kept(tmp_path):
    loop = make_loop(tmp_path, steps=5)
    result = loop.run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (5, None)
    assert result["trained_steps"] == 5
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), loop.model.get_weights()):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(
    ("validate_every", "steps", "expected"),
    [
        (0, 1000, 100),
        (0, 1009, 100),
        (0, 10, 1),
        # Not less than every step.
        (0, 3, 1),
        (7, 1000, 7),
        (2000, 1000, 2000),
    ],
)
def test_there_are_ten_validations_unless_steps_between_them_are_given(
    validate_every, steps, expected
):
    assert LoopConfig(validate_every=validate_every).validation_interval(steps) == expected


class Values:
    """A validation that finds given values, the last of them for ever; counts its calls."""

    def __init__(self, *values):
        self.values, self.calls = values, 0

    def __call__(self, embedder):
        self.calls += 1
        return self.values[min(self.calls, len(self.values)) - 1]


def test_by_default_a_training_validates_ten_times(tmp_path):
    validate = Values(0.5)
    make_loop(tmp_path, steps=20, validate=validate, validate_every=0).run()
    assert validate.calls == 10


def test_a_training_whose_validation_is_flat_ends_before_its_last_step(tmp_path):
    validate = Values(0.2, 0.6, 0.5, 0.5, 0.5, 0.9)
    loop = make_loop(tmp_path, steps=20, validate=validate, patience=2)
    result = loop.run()

    # The best was step 4; validations of steps 6 and 8 are not better.
    assert (result["kept_step"], result["trained_steps"]) == (4, 8)
    assert (result["validation_r_at_1"], validate.calls) == (0.6, 4)
    kept, _ = load_embedding_model(tmp_path / "model")
    with np.load(tmp_path / "checkpoints/step-00000004.npz") as file:
        best = [file[name] for name in file.files if name.startswith("model/")]
    described = [
        sorted((one.shape, one.sum()) for one in some) for some in (kept.get_weights(), best)
    ]
    assert described[0] == described[1]


@pytest.mark.parametrize("patience", [0, 3])
def test_a_training_goes_on_to_its_end_where_it_is_not_flat_for_so_long(tmp_path, patience):
    validate = Values(0.2, 0.6, 0.5, 0.5, 0.7, 0.1)
    result = make_loop(tmp_path, steps=12, validate=validate, patience=patience).run()
    assert (result["kept_step"], result["trained_steps"], validate.calls) == (10, 12, 6)


def test_of_equals_the_later_is_kept_and_a_tie_is_flat(tmp_path):
    result = make_loop(tmp_path, steps=8, validate=Values(0.5), patience=1).run()
    # Validated at 2, the highest, and at 4.
    assert (result["kept_step"], result["trained_steps"]) == (4, 4)


def test_later_weights_within_an_error_of_the_best_are_as_good(tmp_path):
    validate = Values(0.7, 0.75, 0.72, 0.6)

    def error(metric):
        return 0.04

    loop = make_loop(tmp_path, steps=6, validate=validate, keep_start=True, error=error)
    result = loop.run()
    # 0.72 is within 0.04 of 0.75, and 0.6 is not.
    assert (result["kept_step"], result["validation_r_at_1"]) == (4, 0.72)


@pytest.mark.parametrize(
    ("found", "preferences", "expected"),
    [
        ((0.7, 0.75, 0.72, 0.74, 0.6), (0.9, 0.95, 0.97, 0.96, 0.99), (4, 0.72)),
        # Far better ones are kept, whatever is preferred.
        ((0.5, 0.7, 0.69), (0.99, 0.9, 0.8), (2, 0.7)),
    ],
)
def test_among_weights_as_good_on_validation_the_preferred_are_kept(
    tmp_path, found, preferences, expected
):
    result = make_loop(
        tmp_path,
        steps=2 * (len(found) - 1),
        validate=Values(*found),
        keep_start=True,
        error=lambda metric: 0.04,
        prefer=Values(*preferences),
    ).run()
    assert (result["kept_step"], result["validation_r_at_1"]) == expected


def test_without_validation_there_is_no_patience(tmp_path):
    assert make_loop(tmp_path, steps=6, patience=1).run()["trained_steps"] == 6


def test_the_start_is_kept_where_no_later_weights_are_as_good(tmp_path):
    loop = make_loop(tmp_path, steps=4, validate=Values(0.7, 0.6, 0.5), keep_start=True)
    start = [weight.copy() for weight in loop.model.get_weights()]
    result = loop.run()

    assert (result["kept_step"], result["validation_r_at_1"]) == (0, 0.7)
    assert result["trained_steps"] == 4
    assert "step-00000000.npz" in checkpoints_in(tmp_path)
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), start):
        np.testing.assert_array_equal(ours, expected)
    # They are what the training has as its model, too.
    for ours, expected in zip(loop.model.get_weights(), start):
        np.testing.assert_array_equal(ours, expected)


def test_later_weights_that_are_as_good_as_the_start_are_kept(tmp_path):
    loop = make_loop(tmp_path, steps=4, validate=Values(0.7, 0.7, 0.5), keep_start=True)
    result = loop.run()
    assert (result["kept_step"], result["validation_r_at_1"]) == (2, 0.7)


def test_a_start_that_is_not_to_be_kept_is_not_validated(tmp_path):
    validate = Values(0.7, 0.6)
    result = make_loop(tmp_path, steps=4, validate=validate).run()
    assert (result["kept_step"], validate.calls) == (2, 2)


def test_a_start_that_nothing_can_judge_is_not_kept(tmp_path):
    result = make_loop(tmp_path, steps=3, keep_start=True).run()
    assert (result["kept_step"], result["validation_r_at_1"]) == (3, None)


def test_a_start_that_is_better_than_all_ends_a_patient_training(tmp_path):
    validate = Values(0.9, 0.1)
    result = make_loop(tmp_path, steps=20, validate=validate, keep_start=True, patience=2).run()
    assert (result["kept_step"], result["trained_steps"], validate.calls) == (0, 4, 3)


@pytest.mark.parametrize(
    ("values", "killed_at", "kept", "trained"),
    [
        # The start is validated first; killed in that validation, and later.
        ([0.7, 0.6, 0.5, 0.4, 0.3], 1, 0, 6),
        ([0.7, 0.6, 0.5, 0.4, 0.3], 4, 0, 6),
        ([0.7, 0.8, 0.5, 0.4, 0.3], 3, 2, 8),
    ],
)
def test_a_killed_training_keeps_its_start_and_its_patience(
    tmp_path, values, killed_at, kept, trained
):
    options = {"steps": 14, "patience": 3, "keep_start": True, "build": dropping_model}

    def of_step(loop_of):
        """A validation whose value is that of the step, whoever asks."""

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


@pytest.mark.parametrize("frozen_steps", [0, 2])
def test_a_backbone_that_is_not_trained_keeps_weights_and_statistics_bit_for_bit(
    tmp_path, frozen_steps
):
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


def test_whether_few_images_train_a_backbone_is_settled_by_their_number():
    config = OptimizationConfig(steps=10, frozen_steps=3, train_backbone=None)
    assert config.settled(FEW_PICTURES - 1).train_backbone is False
    assert config.settled(FEW_PICTURES).train_backbone is True
    for given in (True, False):
        decided = dataclasses.replace(config, train_backbone=given)
        assert decided.settled(0) == decided.settled(10**6) == decided
    assert dataclasses.replace(config.settled(0), train_backbone=None) == config


@pytest.mark.parametrize(
    ("train_backbone", "frozen"),
    [(True, [True, True, False, False]), (False, [True] * 4)],
)
def test_a_backbone_is_frozen_for_its_first_steps_or_for_all(train_backbone, frozen):
    config = OptimizationConfig(steps=4, frozen_steps=2, train_backbone=train_backbone)
    assert [config.is_frozen(step) for step in range(4)] == frozen


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


def nan_for_negative_labels(labels, embeddings):
    return tf.where(labels[0] < 0, np.nan, tf.reduce_mean(embeddings[:, 0]))


def test_a_loss_that_is_no_number_names_the_step_and_the_last_good_checkpoint_loads(tmp_path):
    loop = make_loop(tmp_path, loss=nan_for_negative_labels, broken_from=3, log_every=100)
    # On a device that would have to be waited for it is seen later, yet before anything is saved.
    loop._look_every = 100
    with pytest.raises(UserError, match="tiny: the loss is nan at step 3; checkpoints before it"):
        loop.run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz"]

    with pytest.raises(UserError, match="tiny: the loss is nan at step 5"):
        make_loop(tmp_path, loss=nan_for_negative_labels, broken_from=5, log_every=100).run()
    assert checkpoints_in(tmp_path) == ["step-00000002.npz", "step-00000004.npz"]

    loop = make_loop(tmp_path, loss=nan_for_negative_labels)
    loop.run()
    assert all(np.isfinite(weight).all() for weight in weights(loop))


def test_a_gradient_that_is_no_number_stops_too(tmp_path):
    def loss(labels, embeddings):
        total = tf.reduce_sum(embeddings)
        # 0, where the root has no gradient.
        return tf.sqrt(total - tf.stop_gradient(total))

    with pytest.raises(UserError, match="tiny: the gradient is not finite at step 1; check"):
        make_loop(tmp_path, loss=loss).run()
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_that_cannot_be_written_ends_the_training_in_words(tmp_path, monkeypatch):
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
