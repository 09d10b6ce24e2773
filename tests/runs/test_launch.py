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
# In each process `index` is known, and so are `addresses`.
HEAD = """
import json, os, sys, time
config = json.loads(os.environ["TF_CONFIG"])
addresses, index = config["cluster"]["worker"], config["task"]["index"]
"""


def run(script, workers=2, **more):
    launch_local([sys.executable, "-c", HEAD + script], workers, **more)


def test_each_process_knows_the_others_and_speaks_with_its_name(capfd):
    run("print(sorted(addresses)); print('to err', index, file=sys.stderr)", workers=3)

    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert sorted(line[:11] for line in lines) == [f"[worker {index}] " for index in range(3)]
    said = {line[11:] for line in lines}
    assert len(said) == 1
    assert len(set(re.findall(r"127\.0\.0\.1:\d+", said.pop()))) == 3
    assert sorted(err.splitlines()) == [f"[worker {i}] to err {i}" for i in range(3)]


def test_when_one_fails_the_others_are_ended_and_it_is_named(capfd):
    with pytest.raises(UserError, match="worker 1 of 2 failed with exit status 3; the others"):
        run("if index: print('why', file=sys.stderr); sys.exit(3)\ntime.sleep(600)")

    assert "[worker 1] why" in capfd.readouterr().err


def test_one_that_is_killed_is_told_with_its_signal():
    with pytest.raises(UserError, match="worker 0 of 2 was killed by SIGKILL"):
        run("if not index: os.kill(os.getpid(), 9)\ntime.sleep(600)")


def test_who_does_not_end_when_asked_is_killed_with_all_it_has_started(tmp_path, capfd):
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
        # Killed; who should have waited for it is gone.
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the process lives")


def test_a_command_that_is_not_there_is_told():
    with pytest.raises(UserError, match="/no/program: cannot be started"):
        launch_local(["/no/program"], 2)


def tool(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "tools/launch_local.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_the_binary_passes_on_what_follows_the_dashes():
    done = tool("--workers=1", "--", sys.executable, "-c", "print('done', 6 * 7)")

    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "[worker 0] done 42",
        "The process has finished without an error; the result is in the output of worker 0",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--workers=2"], "there is no command"),
        (["--workers=0", "--", "true"], "--workers=0"),
        (["--workers=2", "python"], "unexpected argument 'python'"),
        (["--workers=2", "--", "false"], "failed with exit status 1"),
    ],
)
def test_the_binary_tells_what_is_wrong_in_one_line(arguments, said):
    done = tool(*arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
