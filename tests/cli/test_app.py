import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))

BINARY = """
from absl import flags
from apparel_embed.cli import app
from apparel_embed.errors import UserError

_SIZE = flags.DEFINE_integer("size", 3, "size in pixels", lower_bound=1)

def main():
    if _SIZE.value == 7:
        raise UserError("manifest.csv, row 7: too unlucky")
    if _SIZE.value == 8:
        raise RuntimeError("a defect")
    print("size", _SIZE.value)

app.run(main)
"""


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-c", BINARY, *arguments], capture_output=True, text=True, cwd=ROOT
    )


def test_main_runs_with_parsed_flags():
    done = run("--size=5")

    assert (done.returncode, done.stdout) == (0, "size 5\n")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--size=0", "--size=0: 0 is not a positive integer"),
        ("--size=many", "--size=many"),
        ("--sise=5", "sise"),
        ("extra", "unexpected argument 'extra'"),
    ],
)
def test_a_wrong_flag_ends_with_one_line(argument, said):
    done = run(argument)

    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_user_error_ends_with_one_line():
    done = run("--size=7")

    assert done.returncode == 1
    assert done.stderr.strip() == "-c: manifest.csv, row 7: too unlucky"


def test_a_defect_keeps_its_traceback():
    done = run("--size=8")

    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("tool", TOOLS)
def test_every_flag_of_every_binary_has_a_help_text(tool):
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), "--helpxml"], capture_output=True, text=True
    )
    import xml.etree.ElementTree as ElementTree

    tree = ElementTree.fromstring(done.stdout)
    own = [
        flag
        for flag in tree.iter("flag")
        if "absl" not in flag.findtext("file") and flag.findtext("name") != "flagfile"
    ]
    assert own
    for flag in own:
        assert len(flag.findtext("meaning") or "") > 10, flag.findtext("name")
