import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from apparel_embed.cli.ending import command, print_summary

HERE = Path(sys.executable).parent


def test_summary_rows_are_aligned(capsys, activated):
    print_summary([("Report", Path("a/b.html")), ("Next", "python tools/evaluate.py")])
    assert capsys.readouterr().out == "Report:  a/b.html\nNext:    python tools/evaluate.py\n"


def test_commands_run_in_a_shell_without_these_programs_on_the_path(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(HERE.parent.parent)
    print_summary(
        [
            ("Next", "python tools/evaluate.py --run_dir=python"),
            ("TensorBoard", "tensorboard --logdir=runs"),
            ("Python", "pythonic"),
        ]
    )
    inside = os.path.relpath(HERE)
    assert capsys.readouterr().out.splitlines() == [
        f"Next:         {inside}/python tools/evaluate.py --run_dir=python",
        f"TensorBoard:  {inside}/tensorboard --logdir=runs",
        "Python:       pythonic",
    ]


def test_the_absolute_path_is_printed_in_other_directories(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    print_summary([("Next", "python tools/evaluate.py")])
    assert capsys.readouterr().out == f"Next:  {HERE}/python tools/evaluate.py\n"


def test_the_path_of_the_program_is_printed_outside_the_clone(
    capsys, monkeypatch, tmp_path, activated
):
    (tmp_path / "tools").mkdir()
    for name in ("evaluate.py", "embed.py"):
        (tmp_path / "tools" / name).touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "tools" / "embed.py")])
    for directory, path in ((tmp_path, "tools"), (tmp_path / "tools", f"{tmp_path}/tools")):
        monkeypatch.chdir(directory)
        print_summary([("Next", "python tools/evaluate.py --seed=0")])
        assert capsys.readouterr().out == f"Next:  python {path}/evaluate.py --seed=0\n"


@pytest.mark.parametrize("directory", ["runs/mine", "runs/my run", "runs/it's $HOME; #1 (a)"])
def test_commands_with_special_characters_in_paths_are_quoted_for_the_shell(directory):
    line = command("tools/evaluate.py", run_dir=Path(directory), prepared=None, seed=0)
    assert shlex.split(line) == [
        "python",
        "tools/evaluate.py",
        f"--run_dir={directory}",
        "--seed=0",
    ]
    echoed = subprocess.run(
        ["sh", "-c", f"echo {line}"], capture_output=True, text=True, check=True
    )
    assert echoed.stdout == f"python tools/evaluate.py --run_dir={directory} --seed=0\n"


def test_installed_programs_are_called_without_python():
    assert command("tensorboard", logdir="runs") == "tensorboard --logdir=runs"


def test_a_path_of_python_with_a_space_is_one_word(capsys, monkeypatch, tmp_path):
    python = tmp_path / "my env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    print_summary([("Next", command("tools/evaluate.py"))])
    assert shlex.split(capsys.readouterr().out)[1:] == ["my env/bin/python", "tools/evaluate.py"]
