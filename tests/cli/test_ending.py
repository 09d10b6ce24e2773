import os
import sys
from pathlib import Path

from apparel_embed.cli.ending import tell_end

HERE = Path(sys.executable).parent


def test_names_stand_one_below_the_other(capsys, activated):
    tell_end([("Report", Path("a/b.html")), ("Next", "python tools/evaluate.py")])
    assert capsys.readouterr().out == "Report:  a/b.html\nNext:    python tools/evaluate.py\n"


def test_commands_run_in_a_shell_that_knows_no_such_program(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(HERE.parent.parent)
    tell_end(
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


def test_elsewhere_the_whole_path_is_given(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path)
    tell_end([("Next", "python tools/evaluate.py")])
    assert capsys.readouterr().out == f"Next:  {HERE}/python tools/evaluate.py\n"
