"""A run that is stopped or killed at any moment and resumed ends with the same bits."""

import os
import signal
import socket

import numpy as np
import pytest
from tiny_run import STAGES, contents, duration, log_of, start, wait_for, walk

pytestmark = pytest.mark.slow

# How often the run is stopped in the suite; APPAREL_EMBED_KILLS=26 stops every stage twice.
_KILLS = int(os.environ.get("APPAREL_EMBED_KILLS", "2"))
_FEW = ("specialist-dress", "student")
# Used alternately. The first may let a step finish; the second gives no warning.
_SIGNALS = (signal.SIGTERM, signal.SIGKILL)
_STATUS = {signal.SIGTERM: 75, signal.SIGKILL: -signal.SIGKILL}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    walk(run_dir)
    return run_dir


def stages():
    """Returns the stages in which to stop the run, in order."""
    names = STAGES if len(_FEW) < _KILLS else _FEW
    return sorted((names[kill % len(names)] for kill in range(_KILLS)), key=STAGES.index)


def end_in(run_dir, stage, seconds, checkpoint, number):
    """Starts the run and signals it `seconds` after a stage's start or first checkpoint."""
    process = start(run_dir)
    wait_for(run_dir, stage, process, checkpoint)
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, number)
    process.join()
    return process.exitcode


def test_a_run_that_is_stopped_in_several_stages_gives_the_same_bits(whole, tmp_path):
    random = np.random.default_rng(0)
    run_dir = tmp_path / "run"
    ended = []
    for index, stage in enumerate(stages()):
        number = _SIGNALS[(index + 1) % 2]
        # Building its graph takes most of a training's time: wait for that every other time.
        steps = index % 2 == 0 and (whole / stage / "tensorboard").is_dir()
        seconds = random.uniform(0, 1 if steps else duration(whole, stage))
        status = end_in(run_dir, stage, seconds, steps, number)
        since = "its first checkpoint" if steps else "its beginning"
        print(f"{stage}, {seconds:.2f} s after {since}, {number.name}: {status}", flush=True)
        ended.append(status == _STATUS[number])
        # The run may have finished before the signal.
        assert ended[-1] or status == 0
    walk(run_dir)

    assert sum(ended) >= 0.75 * _KILLS
    log = log_of(run_dir).read_text()
    assert "Traceback" not in log
    assert "resuming from step" in log
    found, expected = contents(run_dir), contents(whole)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_second_pipeline_on_the_same_run_is_refused_and_the_first_continues(tmp_path):
    run_dir = tmp_path / "run"
    first = start(run_dir)
    wait_for(run_dir, "synthetic", first)
    second = start(run_dir)
    second.join()
    alive = first.is_alive()
    first.kill()
    first.join()

    assert (alive, second.exitcode) == (True, 1)
    message = f"{run_dir}: process {first.pid} on host {socket.gethostname()} ("
    assert message in log_of(run_dir).read_text()
