"""Runs the recipes of published benchmarks with the commands in their first lines.

The data are miniature trees in the benchmarks' layouts, and training is tiny. Recipes stop after a
dry run; with APPAREL_EMBED_RECIPES=all they run to the end, which takes minutes more.
"""

import json
import os
import re

import pytest
from data.importers.published_trees import TREES
from docs_blocks import ROOT
from docs_running import enter, execute_command, lines_of

# Recipes that run to the end, two minutes each.
WALKED: set[str] = set()
if os.environ.get("APPAREL_EMBED_RECIPES") == "all":
    WALKED = set(TREES)


def commands_of(recipe):
    """Returns the command lines in a recipe's comments."""
    text = (ROOT / f"flags/{recipe}.flags").read_text("utf-8")
    comments = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#"))
    found = re.findall(r"^ {3}(python tools/(?:.*\\\n)*.*)$", comments, re.M)
    return [words for command in found for words in lines_of(command)]


def test_every_importable_benchmark_has_a_recipe_that_is_tested():
    imported = {path.stem for path in (ROOT / "flags").glob("*.flags")} & set(
        re.findall(r"--format=(\w+)", "".join(p.read_text() for p in (ROOT / "flags").iterdir()))
    )
    assert imported == set(TREES)


@pytest.fixture
def commands(request, tmp_path, monkeypatch):
    """The two commands of a recipe, with its data in place, and its run directory."""
    enter(tmp_path, monkeypatch)
    importing, training = commands_of(request.param)
    root = next(word for word in importing if word.startswith("--root="))
    TREES[request.param](tmp_path / root.partition("=")[2])
    return importing, training, tmp_path / "runs" / request.param


@pytest.mark.slow
@pytest.mark.parametrize("commands", sorted(set(TREES) - WALKED), indirect=True)
def test_a_recipe_imports_the_benchmark_and_plans_the_run(commands):
    importing, training, run = commands
    execute_command(importing[1], importing)
    execute_command(training[1], [*training, "--dry_run", "--nomeasure_speed"])
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("commands", sorted(WALKED), indirect=True)
def test_a_recipe_runs_from_the_benchmarks_files_to_a_report(commands):
    importing, training, run = commands
    execute_command(importing[1], importing)
    execute_command(training[1], training)
    summary = json.loads((run / "evaluation/summary.json").read_text())
    assert {"combined", "specialists", "unified"} <= {row["model"] for row in summary["rows"]}
    assert (run / "report/index.html").is_file() and (run / "saved_model/1").is_dir()
