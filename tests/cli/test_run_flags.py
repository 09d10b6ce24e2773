import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The next commands that binaries with these flags print, all in one process.
BINARIES = """
import json, sys
from absl import flags
from apparel_embed.cli import run_flags, search_flags
from apparel_embed.cli.ending import command

commands = []
for kind, given in json.loads(sys.argv[1]):
    before = set(flags.FLAGS)
    run = {**vars(run_flags), **vars(search_flags)}[kind]()
    flags.FLAGS(["binary", *given])
    commands.append(command("tools/next.py", **run.again))
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
print(json.dumps(commands))
"""

RUN, PREPARED = "--run_dir=runs/mine", "--prepared=data/prepared"
INDEX = ["--saved_model=models/3", "--index_uri=http://localhost:19530"]
ACCESS = ["--index_user=me", "--index_ca_file=ca.pem", "--index_password_file=secret.txt"]
GIVEN = {
    "run": ("RunFlags", [RUN]),
    "run with its dataset": ("RunFlag", [RUN]),
    "run and dataset": ("RunFlags", [RUN, PREPARED]),
    "searched run": ("SearchRunFlags", [RUN]),
    "model and index": ("SearchRunFlags", [RUN, PREPARED, *INDEX]),
    "model, index and access": ("SearchRunFlags", [RUN, PREPARED, *INDEX, *ACCESS]),
}


@pytest.fixture(scope="module")
def commands():
    done = subprocess.run(
        [sys.executable, "-c", BINARIES, json.dumps(list(GIVEN.values()))],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(GIVEN, json.loads(done.stdout.splitlines()[-1])))


@pytest.mark.parametrize("what", GIVEN)
def test_the_next_command_has_exactly_the_given_flags(commands, what):
    _, given = GIVEN[what]
    assert commands[what] == f"python tools/next.py {' '.join(given)}"
