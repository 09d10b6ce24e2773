import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from docs_blocks import ROOT

from apparel_embed.cli.binaries import as_called, binaries, flag_file, summary_of

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))


def apparel_embed(*arguments, cwd, path=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "apparel_embed", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path)},
    )


def test_help_lists_every_binary_with_one_line(tmp_path):
    done = apparel_embed("--help", cwd=tmp_path)
    assert done.returncode == 0
    listed = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line[:2] == "  "][1:]
    assert [name for name, _ in listed] == TOOLS == list(binaries())
    for name, line in listed:
        assert line == summary_of(ROOT / f"tools/{name}.py")
        assert line.endswith(".") and len(line) <= 100, name
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert apparel_embed(cwd=tmp_path).stdout == done.stdout


def test_a_binary_gets_its_flags_and_returns_its_status(tmp_path):
    done = apparel_embed("import_dataset", "--format=folders", "--root=x", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("import_dataset.py: ")


def test_an_unknown_binary_is_a_one_line_error(tmp_path):
    done = apparel_embed("trian_student", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("apparel_embed: no binary 'trian_student'; expected one of ")
    assert "train_student" in line


def test_a_recipe_is_found_by_name_unless_a_file_of_that_name_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = str(ROOT / "flags/quickstart.flags")
    assert flag_file("quickstart") == flag_file("flags/quickstart.flags") == recipe
    assert flag_file("mine.flags") == "mine.flags"
    assert flag_file("elsewhere/quickstart.flags") == "elsewhere/quickstart.flags"
    Path("quickstart").touch()
    assert flag_file("quickstart") == "quickstart"


def test_commands_are_unchanged_in_a_clone():
    assert (
        as_called("python tools/evaluate.py --run_dir=x") == "python tools/evaluate.py --run_dir=x"
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("apparel_embed", "tools", "flags"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel"]
    subprocess.run(command, check=True, cwd=source, capture_output=True)
    (path,) = (source / "dist").glob("*.whl")
    zipfile.ZipFile(path).extractall(site)
    return site


@pytest.mark.slow
def test_the_wheel_has_all_binaries_and_recipes(wheel, tmp_path):
    (found,) = importlib.metadata.distributions(path=[str(wheel)])
    (command,) = found.entry_points
    assert (command.name, command.load().__name__) == ("apparel_embed", "main")
    for folder in ("tools", "flags"):
        here = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
        assert {path.name for path in (wheel / "apparel_embed" / folder).iterdir()} == here

    done = apparel_embed("--help", cwd=tmp_path, path=wheel)
    assert all(f"\n  {tool} " in done.stdout for tool in TOOLS)
    done = apparel_embed("train_student", "--help", cwd=tmp_path, path=wheel)
    assert "\n    apparel_embed train_student --run_dir=" in done.stdout
    assert "tools/" not in done.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_directory(wheel, tmp_path):
    small = [f"--synthetic_{name}_items=1" for name in ("train", "val", "test")]
    done = apparel_embed(
        "make_synthetic_dataset", "--output=few", "--synthetic_verticals=dress", *small,
        "--processes=1", cwd=tmp_path, path=wheel,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "apparel_embed prepare_dataset --manifest=few/manifest.csv" in done.stdout
    done = apparel_embed(
        "prepare_dataset", "--manifest=few/manifest.csv", "--output=prepared", "--processes=1",
        cwd=tmp_path, path=wheel,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0 rejected" in done.stdout
    given = ["run_pipeline", "--flagfile=quickstart", "--run_dir=x", "--only_check_args"]
    assert apparel_embed(*given, cwd=tmp_path, path=wheel).returncode == 0
    done = apparel_embed("train_student", "--flagfile=quickstart", cwd=tmp_path, path=wheel)
    assert "is for apparel_embed run_pipeline" in done.stderr
