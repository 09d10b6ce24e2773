import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.runs.launch import launch_local

ROOT = Path(__file__).parents[2]
# Defines `index` and `addresses` in each process.
HEAD = """
import json, os, sys, time
config = json.loads(os.environ["TF_CONFIG"])
addresses, index = config["cluster"]["worker"], config["task"]["index"]
"""


def run(script, workers=2, **more):
    launch_local([sys.executable, "-c", HEAD + script], workers, **more)


def test_each_process_gets_all_addresses_and_its_output_has_its_name(capfd):
    run("print(sorted(addresses)); print('to err', index, file=sys.stderr)", workers=3)

    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert sorted(line[:11] for line in lines) == [f"[worker {index}] " for index in range(3)]
    printed = {line[11:] for line in lines}
    assert len(printed) == 1
    assert len(set(re.findall(r"127\.0\.0\.1:\d+", printed.pop()))) == 3
    assert sorted(err.splitlines()) == [f"[worker {i}] to err {i}" for i in range(3)]


def test_the_error_names_the_process_that_fails_and_the_others_are_stopped(capfd):
    with pytest.raises(UserError, match="worker 1 of 2 failed with exit status 3; the others"):
        run("if index: print('why', file=sys.stderr); sys.exit(3)\ntime.sleep(600)")

    assert "[worker 1] why" in capfd.readouterr().err


def test_the_error_for_a_killed_process_names_the_signal():
    with pytest.raises(UserError, match="worker 0 of 2 was killed by SIGKILL"):
        run("if not index: os.kill(os.getpid(), 9)\ntime.sleep(600)")


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(tmp_path, capfd):
    stubborn = """
import signal, subprocess
if index:
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.05)
    sys.exit(5)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
open(sys.argv[1], "w").close()
time.sleep(600)
"""
    with pytest.raises(UserError, match="worker 1 of 2 failed with exit status 5"):
        launch_local(
            [sys.executable, "-c", HEAD + stubborn, str(tmp_path / "ready")], 2, grace_seconds=0.2
        )

    child = int(re.search(r"\[worker 0\] (\d+)", capfd.readouterr().out)[1])
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        # It was killed, and may remain as a zombie as its parent is gone.
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the process is still running")


def test_a_missing_command_is_an_error():
    with pytest.raises(UserError, match="/no/program: could not be started"):
        launch_local(["/no/program"], 2)


def tool(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools/launch_local.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_binary_runs_the_command_after_the_dashes():
    done = tool("--workers=1", "--", sys.executable, "-c", "print('done', 6 * 7)")

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "[worker 0] done 42",
        "The process has finished without an error; the result is in the output of worker 0",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers=2"], "no command; give one after --"),
        (["--workers=0", "--", "true"], "--workers=0"),
        (["--workers=2", "python"], "unexpected argument 'python'"),
        (["--workers=2", "--", "false"], "failed with exit status 1"),
    ],
)
def test_errors_of_the_binary_have_one_line(arguments, message):
    done = tool(*arguments)

    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
