import contextlib
import dataclasses
import math
import threading
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from disks import largest_file, own_disk

from apparel_embed.common.errors import UserError
from apparel_embed.training.checkpoints import Checkpoints, Progress, named_variables
from apparel_embed.training.optimization import make_optimizer
from apparel_embed.training.settings import OptimizationConfig


class Training:
    """A model and its optimiser, whose variables count the steps."""

    def __init__(self, directory, *, keep=2, units=4):
        inputs = tf.keras.Input([3])
        norm = tf.keras.layers.BatchNormalization()
        self.model = tf.keras.Model(inputs, norm(tf.keras.layers.Dense(units)(inputs)))
        self.optimizer = make_optimizer(OptimizationConfig(steps=100))
        self.optimizer.build(self.model.trainable_variables)
        self.checkpoints = Checkpoints(
            directory,
            model=self.model,
            optimizer=self.optimizer,
            keep=keep,
            what="tiny",
        )
        self.progress = Progress()

    @property
    def variables(self):
        return [*self.model.variables, *self.optimizer.variables]

    def set(self, value):
        for number, variable in enumerate(self.variables):
            variable.assign(tf.fill(variable.shape, tf.cast(value + number, variable.dtype)))

    def save(self, step, best_step=None):
        self.set(step)
        best = (-1.0, 0) if best_step is None else (step / 100, best_step)
        self.progress = Progress(step, *best, step * 1.5, 1 / max(step, 1))
        self.checkpoints.save(self.progress)

    def is_at(self, step):
        return all(
            np.all(variable.numpy() == step + number)
            for number, variable in enumerate(self.variables)
        )


def saved(directory, *steps, best=None, keep=2):
    """Writes checkpoints; `best` maps some of their steps to the step of the best weights."""
    training = Training(directory, keep=keep)
    with training.checkpoints:
        for step in steps:
            training.save(step, (best or {}).get(step))
    return training


def steps_in(directory):
    return sorted(path.name for path in directory.iterdir())


def path_of(directory, step):
    return directory / f"step-{step:08d}.npz"


def test_every_variable_and_the_progress_are_restored(tmp_path):
    saved(tmp_path, 10)
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        progress = checkpoints.restore()

    assert dataclasses.asdict(progress) == {
        "step": 10,
        "best": -1.0,
        "best_step": 0,
        "seconds": 15.0,
        "last_loss": 0.1,
        "peak": -1.0,
        "peak_step": 0,
        "preference": -math.inf,
    }
    assert training.is_at(10)


@pytest.mark.parametrize("scaled", [False, True])
def test_all_variables_of_model_and_optimiser_are_named(scaled):
    model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=[3])])
    optimizer = make_optimizer(OptimizationConfig(steps=100))
    if scaled:
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    found = named_variables({"model": model, "optimizer": optimizer})

    ids = {id(variable) for variable in found.values()}
    assert ids >= {id(variable) for variable in [*model.variables, *optimizer.variables]}
    assert any("loss_scale" in name for name in found) == scaled
    assert sum(name.startswith("model/") for name in found) == len(model.variables)


def test_without_checkpoints_nothing_changes(tmp_path):
    training = Training(tmp_path / "none")
    training.set(3)
    with training.checkpoints as checkpoints:
        assert checkpoints.restore().step == 0
    assert training.is_at(3)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_is_written_in_the_background_with_the_values_of_its_step(
    tmp_path, monkeypatch
):
    ready = threading.Event()
    savez = np.savez

    def slow(*arguments, **arrays):
        assert ready.wait(60)
        savez(*arguments, **arrays)

    monkeypatch.setattr(np, "savez", slow)
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        training.save(10)
        # The training continues before anything is written.
        training.set(11)
        training.progress.step = 11
        assert list(tmp_path.glob("step*")) == []
        ready.set()
        checkpoints.wait()
        assert steps_in(tmp_path) == ["step-00000010.npz"]

    again = Training(tmp_path)
    with again.checkpoints as checkpoints:
        assert checkpoints.restore().step == 10
    assert again.is_at(10)


def test_the_newest_checkpoints_and_the_best_of_each_are_kept(tmp_path):
    saved(tmp_path, 10, 20, 30, 40, 50, keep=2)
    assert steps_in(tmp_path) == ["step-00000040.npz", "step-00000050.npz"]

    best = tmp_path / "best"
    saved(best, 10, 20, 30, 40, 50, best={10: 10, 20: 10, 30: 10, 40: 40, 50: 40}, keep=2)
    assert steps_in(best) == ["step-00000040.npz", "step-00000050.npz"]

    older = tmp_path / "older"
    saved(older, 10, 20, 30, 40, best={10: 10, 20: 20, 30: 20, 40: 20}, keep=1)
    assert steps_in(older) == ["step-00000020.npz", "step-00000040.npz"]


def test_checkpoints_of_an_interrupted_training_are_kept_by_the_next(tmp_path):
    saved(tmp_path, 10, 20, 30, best={10: 10, 20: 10, 30: 10})
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        checkpoints.restore()
        training.save(40, best_step=10)
    assert steps_in(tmp_path) == [f"step-000000{step}.npz" for step in (10, 30, 40)]


def test_the_initial_weights_are_kept_and_restored_while_they_are_the_best(tmp_path):
    saved(tmp_path, 0, 10, 20, 30, best=dict.fromkeys((0, 10, 20, 30), 0))
    assert steps_in(tmp_path) == [f"step-000000{step}.npz" for step in ("00", "20", "30")]
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        progress = checkpoints.restore()
        assert (progress.step, progress.best_step) == (30, 0)
        checkpoints.restore_best(progress)
    for number, variable in enumerate(training.model.variables):
        assert np.all(variable.numpy() == number)


def test_checkpoints_whose_best_initial_weights_are_missing_are_skipped(tmp_path):
    saved(tmp_path, 0, 10, 20, best=dict.fromkeys((0, 10, 20), 0))
    path_of(tmp_path, 0).unlink()
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        assert checkpoints.restore().step == 0


def test_the_best_weights_are_restored_only_into_the_model(tmp_path):
    saved(tmp_path, 10, 20, best={10: 10, 20: 10})
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        progress = checkpoints.restore()
        checkpoints.restore_best(progress)

    weights = len(training.model.variables)
    for number, variable in enumerate(training.variables):
        assert np.all(variable.numpy() == number + (10 if number < weights else 20))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    data = bytearray(path.read_bytes())
    # Damages the array, not the archive's metadata.
    end_of_name = largest.header_offset + data[largest.header_offset :].index(b"NUMPY")
    data[end_of_name + largest.file_size // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def fill_with_text(path):
    path.write_text("not an archive")


def remove_a_member(path):
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members.pop("progress.npy")
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            new.writestr(name, data)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, fill_with_text, remove_a_member])
def test_a_damaged_checkpoint_is_logged_and_the_previous_one_is_used(tmp_path, caplog, damage):
    saved(tmp_path, 10, 20)
    damage(path_of(tmp_path, 20))
    training = Training(tmp_path)
    with training.checkpoints as checkpoints:
        assert checkpoints.restore().step == 10
        assert training.is_at(10)
        assert f"checkpoint {path_of(tmp_path, 20)} is damaged (" in caplog.text
        # The damaged one does not count as one of the newest.
        training.save(15)
        checkpoints.wait()
    assert steps_in(tmp_path) == ["step-00000010.npz", "step-00000015.npz"]


def test_the_training_starts_from_step_0_if_all_checkpoints_are_damaged(tmp_path, caplog):
    saved(tmp_path, 10, 20)
    for step in (10, 20):
        truncate(path_of(tmp_path, step))
    training = Training(tmp_path)
    training.set(0)
    with training.checkpoints as checkpoints:
        assert checkpoints.restore().step == 0
    assert training.is_at(0)
    assert caplog.text.count("is damaged") == 2


def test_a_checkpoint_whose_best_weights_are_lost_is_skipped(tmp_path, caplog):
    saved(tmp_path, 10, 20, 30, best={10: 10, 20: 20, 30: 20})
    truncate(path_of(tmp_path, 20))
    training = Training(tmp_path, keep=3)
    with training.checkpoints as checkpoints:
        assert checkpoints.restore().step == 0
    path_of(tmp_path, 20).unlink()
    with Training(tmp_path).checkpoints as checkpoints:
        assert checkpoints.restore().step == 0
    assert "No such file" in caplog.text


def test_best_weights_damaged_during_the_training_are_an_error(tmp_path):
    training = saved(tmp_path, 10, 20, best={10: 10, 20: 10})
    truncate(path_of(tmp_path, 10))
    message = r"step-00000010\.npz: the best weights of tiny cannot be read .*same command again"
    with pytest.raises(UserError, match=message):
        training.checkpoints.restore_best(training.progress)


def test_a_checkpoint_of_another_model_is_refused_and_kept(tmp_path):
    saved(tmp_path, 10)
    training = Training(tmp_path, units=5)
    message = r"step-00000010\.npz: written by another release: .* model/.*\(5,\).*\(4,\).*; delete"
    with pytest.raises(UserError, match=message), training.checkpoints as checkpoints:
        checkpoints.restore()
    assert steps_in(tmp_path) == ["step-00000010.npz"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_checkpoint_with_non_finite_values_is_not_written(tmp_path, value):
    training = Training(tmp_path)
    message = (
        r"tiny: model/\S*kernel contains values that are not finite at step 20; step-00000020.npz"
    )
    with pytest.raises(UserError, match=message), training.checkpoints:
        training.save(10)
        training.set(20)
        training.model.layers[1].kernel.assign(tf.fill([3, 4], value))
        training.checkpoints.save(Progress(20))
    assert steps_in(tmp_path) == ["step-00000010.npz"]
    again = Training(tmp_path)
    with again.checkpoints as checkpoints:
        assert checkpoints.restore().step == 10


def check_that_the_last_checkpoint_is_kept(directory):
    assert steps_in(directory) == ["step-00000010.npz"]
    training = Training(directory)
    with training.checkpoints as checkpoints:
        assert checkpoints.restore().step == 10
    assert training.is_at(10)


def test_a_file_size_limit_is_an_error_and_the_last_checkpoint_is_kept(tmp_path):
    training = Training(tmp_path)
    message = r"step-00000020\.npz: File too large; finished work is kept: raise the limit"
    with pytest.raises(UserError, match=message), training.checkpoints as checkpoints:
        training.save(10)
        checkpoints.wait()
        with largest_file(1000):
            training.save(20)
            while checkpoints._pending is not None:
                checkpoints.check()
    check_that_the_last_checkpoint_is_kept(tmp_path)


def test_a_full_disk_is_an_error_and_the_last_checkpoint_is_kept(tmp_path):
    disk = tmp_path / "disk"
    with own_disk(disk, "size=64k"):
        training = Training(disk)
        message = r"step-00000020\.npz: No space left on device; .* kept: free some space"
        with pytest.raises(UserError, match=message), training.checkpoints as checkpoints:
            training.save(10)
            checkpoints.wait()
            (disk / "filler").write_bytes(b"x" * (64 * 1024 - 3 * 4096))
            with contextlib.suppress(OSError):
                (disk / "more").write_bytes(b"x" * 65536)
            training.save(20)
        for name in ("filler", "more"):
            (disk / name).unlink()
        check_that_the_last_checkpoint_is_kept(disk)


def test_a_read_only_directory_is_an_error(tmp_path):
    disk = tmp_path / "disk"
    with own_disk(disk, "ro"):
        training = Training(disk / "checkpoints")
        message = r"Read-only file system; .*choose a writable directory"
        with pytest.raises(UserError, match=message), training.checkpoints:
            training.save(10)
