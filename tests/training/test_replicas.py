"""Several replicas, in one process or in several, give the results of one device."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import replica_training

from apparel_embed.common.errors import UserError
from apparel_embed.common.interruption import STOPPED
from apparel_embed.runs.launch import launch_local


def command(strategy, devices, dataset, output):
    program = Path(replica_training.__file__)
    arguments = [program, strategy, devices, dataset.directory, output]
    return [sys.executable, *map(str, arguments)]


@pytest.fixture(scope="module")
def one_device(tiny_prepared, tmp_path_factory):
    return replica_training.train("one", tiny_prepared.directory, tmp_path_factory.mktemp("one"))


def assert_same(directory, expected):
    # Otherwise there would be nothing to compare.
    assert expected["moved"] > 1e-2
    with np.load(directory / "found.npz") as found:
        assert set(found.files) == set(expected)
        for name in found.files:
            np.testing.assert_allclose(found[name], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_replicas_give_losses_and_weights_of_one_device_after_ten_steps(
    tiny_prepared, one_device, tmp_path
):
    done = subprocess.run(
        command("mirrored", 2, tiny_prepared, tmp_path / "out"),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert_same(tmp_path / "out", one_device)


@pytest.mark.slow
def test_two_processes_give_losses_and_weights_of_one_device_after_ten_steps(
    tiny_prepared, one_device, tmp_path
):
    launch_local(command("multi_worker", 1, tiny_prepared, tmp_path / "out"), workers=2)

    assert_same(tmp_path / "out", one_device)


@pytest.mark.slow
def test_sigterm_of_one_process_saves_and_stops_all_at_the_same_step(
    tiny_prepared, tmp_path, capfd
):
    with pytest.raises(UserError, match=f"failed with exit status {STOPPED}"):
        launch_local(
            [*command("multi_worker", 1, tiny_prepared, tmp_path / "out"), "SIGTERM"],
            workers=2,
            grace_seconds=60,
        )

    printed = capfd.readouterr().err
    for index in range(2):
        assert f"[worker {index}] " in printed
    assert printed.count("multi_worker: stopped at step 6 of 10") == 2
    directories = list(tmp_path.iterdir())
    assert len(directories) == 2
    for directory in directories:
        # Every fourth step is saved as well.
        saved = sorted(path.name for path in (directory / "checkpoints").glob("step-*"))
        assert any(re.fullmatch(r"step-0*6\b.*", name) for name in saved), saved
        assert not (directory / "model").exists()


@pytest.mark.slow
def test_if_one_process_is_killed_the_others_end_with_an_error_of_one_line(
    tiny_prepared, tmp_path, capfd
):
    with pytest.raises(UserError, match="worker 1 of 2 was killed by SIGKILL"):
        launch_local(
            [*command("multi_worker", 1, tiny_prepared, tmp_path / "out"), "SIGKILL"],
            workers=2,
            grace_seconds=120,
        )

    last = capfd.readouterr().err.splitlines()[-1]
    assert "[worker 0] " in last
    assert "UserError: multi_worker: another process of this training ended or cannot be" in last
    # Every fourth step and the best are saved.
    saved = sorted((tmp_path / "out/checkpoints").glob("step-*"))
    assert saved
    for path in saved:
        with np.load(path) as whole:
            assert whole.files
