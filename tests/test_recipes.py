"""The recipes of published benchmarks, as their own first lines tell to run them.

The data are miniature trees in the benchmarks' layouts; what is trained is made tiny.
"""

import json
import re

import pytest
from data.importers import published_trees
from docs_blocks import ROOT
from docs_running import enter, execute_command, lines_of

TREES = {
    "deepfashion2": published_trees.make_deepfashion2,
    "deepfashion_consumer_to_shop": published_trees.make_consumer_to_shop,
    "deepfashion_in_shop": published_trees.make_in_shop,
    "stanford_online_products": published_trees.make_stanford_online_products,
    "street2shop": published_trees.make_street2shop,
}


def commands_of(recipe):
    """The command lines in a recipe's comments."""
    text = (ROOT / f"flags/{recipe}.flags").read_text("utf-8")
    comments = "\n".join(line[1:] for line in text.splitlines() if line.startswith("#"))
    found = re.findall(r"^ {3}(python tools/(?:.*\\\n)*.*)$", comments, re.M)
    return [words for command in found for words in lines_of(command)]


def test_every_benchmark_that_can_be_imported_has_a_recipe_that_is_run_here():
    imported = {path.stem for path in (ROOT / "flags").glob("*.flags")} & set(
        re.findall(r"--format=(\w+)", "".join(p.read_text() for p in (ROOT / "flags").iterdir()))
    )
    assert imported == set(TREES)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TREES)
def test_a_recipe_goes_from_the_benchmarks_files_to_a_report(recipe, tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    importing, training = commands_of(recipe)
    root = next(word for word in importing if word.startswith("--root="))
    TREES[recipe](tmp_path / root.partition("=")[2])

    for words in (importing, training):
        execute_command(f"flags/{recipe}.flags", words)

    run = tmp_path / "runs" / recipe
    summary = json.loads((run / "evaluation/summary.json").read_text())
    assert {"combined", "specialists", "unified"} <= {row["model"] for row in summary["rows"]}
    assert (run / "report/index.html").is_file() and (run / "saved_model/1").is_dir()
