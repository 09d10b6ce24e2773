import json
import sys
from pathlib import Path

import pytest

from apparel_embed.benchmarks import process
from apparel_embed.benchmarks.process import ProcessFailed, environment_with, run_json, run_module
from apparel_embed.common.errors import UserError


def program(text):
    return [sys.executable, "-c", f"import json, sys\n{text}"]


def test_a_process_gets_json_and_its_last_line_is_json():
    doubled = program("print('at work'); print(json.dumps(2 * json.loads(sys.argv[1])))")
    assert run_json(doubled, [1, "a"]) == [1, "a", 1, "a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("sys.exit('one\\ntwo')", "two"), ("sys.exit(3)", "exit status 3")],
    ids=["its last line", "nothing"],
)
def test_a_process_that_fails_is_told_by(text, said):
    with pytest.raises(ProcessFailed) as failed:
        run_json(program(text), {})
    assert str(failed.value) == said


def test_a_killed_process_is_told_whatever_it_said_before():
    killed = program(
        "import os, signal; print('a warning', file=sys.stderr, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with pytest.raises(ProcessFailed) as failed:
        run_json(killed, {})
    assert str(failed.value) == "killed, as a process is where memory runs out"


def test_a_program_that_is_not_there_fails(tmp_path):
    with pytest.raises(ProcessFailed, match=r"No such file or directory: '.*/python'"):
        run_json([str(tmp_path / "python")], {})


def test_where_memory_runs_out_the_process_is_ended_and_not_who_waits_for_it():
    score = Path("/proc/self/oom_score_adj")
    if not score.exists():
        pytest.skip("no /proc here")
    before = score.read_text()
    asked = f"import time; time.sleep(0.5); print(open({str(score)!r}).read().strip())"
    assert run_json(program(asked), {}) == 1000
    assert score.read_text() == before


def test_a_module_that_is_not_there_fails():
    with pytest.raises(ProcessFailed, match=r"No module named apparel_embed\.benchmarks\.nothing"):
        run_module("nothing", {})


@pytest.fixture
def made(monkeypatch):
    """Environments in which pip is a program that notes what it is asked for, and may fail."""

    def create(directory, *, with_pip, clear):
        assert with_pip and clear
        calls.append(directory)
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        (directory / "pyvenv.cfg").touch()
        python = directory / "bin" / "python"
        python.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"open({str(directory / 'asked')!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
            f"sys.exit('broken' in str(sys.argv))\n"
        )
        python.chmod(0o755)

    calls = []
    monkeypatch.setattr(process.venv, "create", create)
    return calls


def test_an_environment_is_made_once_and_anew_for_other_packages(tmp_path, made):
    directory = tmp_path / "environment"
    for _ in range(2):
        assert environment_with(directory, ["tool==1", "more"]) == directory / "bin"
    assert made == [directory]
    asked = json.loads((directory / "asked").read_text())
    assert asked == ["-m", "pip", "install", "--quiet", "tool==1", "more"]
    environment_with(directory, ["tool==2", "more"])
    assert made == [directory] * 2
    assert "tool==2" in (directory / "asked").read_text()


def test_an_environment_of_an_earlier_release_is_made_anew(tmp_path, made):
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / "installed").touch()
    environment_with(tmp_path, ["tool==1"])
    assert made == [tmp_path]


def test_packages_that_cannot_be_installed_are_told_also_by_a_pip_that_says_nothing(tmp_path, made):
    directory = tmp_path / "environment"
    with pytest.raises(UserError) as told:
        environment_with(directory, ["broken==1"], advice="do without")
    assert str(told.value) == (
        f"broken==1 could not be installed into {directory}: exit status 1; do without"
    )
    with pytest.raises(UserError, match=r"exit status 1$"):
        environment_with(directory, ["broken==1"])
    assert len(made) == 2


def test_what_is_no_environment_is_not_cleared(tmp_path, made):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds something else than a virtual environment"):
        environment_with(tmp_path, ["tool==1"])
    assert made == []
    assert (tmp_path / "thesis.txt").exists()
