import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What binaries with these flags print as the next command, all in one process.
BINARIES = """
import json, sys
from absl import flags
from apparel_embed.cli import run_flags, search_flags
from apparel_embed.cli.ending import command

said = []
for kind, given in json.loads(sys.argv[1]):
    before = set(flags.FLAGS)
    run = {**vars(run_flags), **vars(search_flags)}[kind]()
    flags.FLAGS(["binary", *given])
    said.append(command("tools/next.py", **run.again))
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
print(json.dumps(said))
"""

RUN, PREPARED = "--run_dir=runs/mine", "--prepared=data/prepared"
INDEX = ["--saved_model=models/3", "--index_uri=http://localhost:19530"]
ACCESS = ["--index_user=me", "--index_ca_file=ca.pem", "--index_password_file=secret.txt"]
GIVEN = {
    "the run": ("RunFlags", [RUN]),
    "the run that has the dataset in it": ("RunFlag", [RUN]),
    "the dataset too": ("RunFlags", [RUN, PREPARED]),
    "the run that is searched": ("SearchRunFlags", [RUN]),
    "the model and the index too": ("SearchRunFlags", [RUN, PREPARED, *INDEX]),
    "how to reach the index, too": ("SearchRunFlags", [RUN, PREPARED, *INDEX, *ACCESS]),
}


@pytest.fixture(scope="module")
def said():
    done = subprocess.run(
        [sys.executable, "-c", BINARIES, json.dumps(list(GIVEN.values()))],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(GIVEN, json.loads(done.stdout.splitlines()[-1])))


@pytest.mark.parametrize("what", GIVEN)
def test_the_next_command_is_given_what_was_named_and_no_more(said, what):
    _, given = GIVEN[what]
    assert said[what] == f"python tools/next.py {' '.join(given)}"
