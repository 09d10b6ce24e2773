"""A run that is killed at any moment, called again, comes to the same end, bit by bit."""

import os
import signal
import time

import numpy as np
import pytest
from tiny_run import AT_WORK, contents, duration, log_of, start, walk

# So many kills in the suite; APPAREL_EMBED_KILLS=20 spreads more of them over all stages.
_KILLS = int(os.environ.get("APPAREL_EMBED_KILLS", "4"))
_FEW = ("prepared", "specialist-dress", "student", "evaluation")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    walk(run_dir)
    return run_dir


def stages():
    """Returns the stage of each kill, in the order of the run."""
    names = list(AT_WORK) if len(_FEW) < _KILLS else list(_FEW)
    return sorted((names[kill % len(names)] for kill in range(_KILLS)), key=list(AT_WORK).index)


def kill_in(run_dir, stage, seconds):
    """Starts the run, and kills it that long after a stage began; returns whether it was alive."""
    process = start(run_dir)
    at_work = run_dir / AT_WORK[stage]
    while not at_work.exists() and process.is_alive() and not (run_dir / stage).exists():
        time.sleep(0.005)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_killed_in_every_stage_a_run_comes_to_the_same_bits(whole, tmp_path):
    random = np.random.default_rng(0)
    run_dir = tmp_path / "run"
    killed = []
    for stage in stages():
        seconds = random.uniform(0, duration(whole, stage))
        if kill_in(run_dir, stage, seconds):
            killed.append((stage, round(seconds, 2)))
    walk(run_dir)
    print("killed:", killed)

    assert len(killed) >= _KILLS - 1
    log = log_of(run_dir).read_text()
    assert "Traceback" not in log
    ours, expected = contents(run_dir), contents(whole)
    assert sorted(ours) == sorted(expected)
    different = [name for name in expected if ours[name] != expected[name]]
    assert different == []
