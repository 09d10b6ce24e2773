"""Recipes set the defaults of flags; tested in a separate process, as flags are global."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import run_tool

from apparel_embed.cli.recipes import PRETRAINED, RECIPES, SCRATCH
from apparel_embed.models.backbones import BACKBONES
from apparel_embed.models.embedding import POOLINGS

ROOT = Path(__file__).parents[2]

# The values of a binary's flags for each of several command lines, all in one process.
BINARY = """
import json, sys
from absl import flags
from apparel_embed.cli.recipes import apply_recipe
from apparel_embed.cli.training_flags import (
    SpecialistFlags, StudentFlags, TrainingFlags, init_weights_flag
)

def everything():
    training = TrainingFlags()
    specialist, student = SpecialistFlags(training), StudentFlags(training)
    return lambda: (specialist.config(), student.config())

def specialist_only():
    training = TrainingFlags()
    specialist = SpecialistFlags(training)
    return lambda: (specialist.config(), None)

def weights_only():
    init_weights_flag()
    return lambda: (None, None)

binaries = {one.__name__: one for one in (everything, specialist_only, weights_only)}
found = []
for binary, given in json.loads(sys.argv[1]):
    before = set(flags.FLAGS)
    configs = binaries[binary]()
    flags.FLAGS(["binary", *given])
    apply_recipe()
    # Configurations are built from the parsed flags and the recipe.
    configs()
    defined = set(flags.FLAGS) - before
    found.append({name: flags.FLAGS[name].value for name in sorted(defined)})
    for name in defined:
        delattr(flags.FLAGS, name)
print(json.dumps(found))
"""
PRESET, FILE = "--init_weights=resnet50_imagenet", "--init_weights=weights.h5"
GIVEN = {
    "nothing": ("everything", []),
    "weights": ("everything", [PRESET]),
    "a file": ("everything", [FILE]),
    "no weights": ("everything", ["--init_weights=none"]),
    "scratch with weights": ("everything", [PRESET, "--recipe=scratch"]),
    "pretrained without weights": ("everything", ["--recipe=pretrained"]),
    "some flags": (
        "everything",
        [PRESET, "--backbone=resnet50", "--margin=0.3", "--image_size=64", "--pooling=average"],
    ),
    # Equal to the flags' own defaults, but given.
    "defaults": (
        "everything",
        [PRESET, "--train_backbone=yes", "--min_images=2", "--student_batch_size=64"],
    ),
    "a specialist": ("specialist_only", [PRESET]),
    "no recipe": ("weights_only", [PRESET]),
}


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, "-c", BINARY, json.dumps(list(GIVEN.values()))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(GIVEN, json.loads(done.stdout.splitlines()[-1])))


def changed(found, what):
    """Returns the flags and values that differ from those without a recipe."""
    return {
        name: value
        for name, value in found[what].items()
        if value != found["nothing"][name] and name not in ("init_weights", "recipe")
    }


def test_the_scratch_recipe_keeps_the_flags_own_defaults(found):
    assert found["nothing"]["recipe"] == "auto"
    assert found["nothing"]["pooling"] == "average"
    assert found["nothing"]["train_backbone"] == "yes"
    assert changed(found, "no weights") == changed(found, "scratch with weights") == {}
    assert RECIPES[SCRATCH] == {}


@pytest.mark.parametrize("what", ["weights", "a file", "pretrained without weights"])
def test_auto_follows_the_initial_weights_and_a_named_recipe_overrides_it(found, what):
    expected = {
        name: value for name, value in RECIPES[PRETRAINED].items() if name in found["nothing"]
    }
    # The combined model has separate flags, which only the pipeline has.
    others = {*RECIPES[PRETRAINED]} - {*expected}
    assert all(name.startswith("combined_") for name in others)
    assert {name: found[what][name] for name in expected} == expected
    assert {*changed(found, what)} <= {*expected}


def test_given_flags_override_the_recipe(found):
    some = found["some flags"]
    assert (some["backbone"], some["margin"]) == ("resnet50", 0.3)
    assert (some["image_size"], some["pooling"]) == (64, "average")
    # The others are set by the recipe.
    assert (some["items_per_batch"], some["train_backbone"]) == (20, "auto")

    defaults = found["defaults"]
    assert (defaults["train_backbone"], defaults["min_images"]) == ("yes", 2)
    assert defaults["student_batch_size"] == 64
    assert defaults["pooling"] == "pyramid"


def test_a_binary_with_some_of_the_flags_gets_only_those(found):
    one = found["a specialist"]
    assert "student_steps" not in one
    assert "student_batch_size" not in one
    for name in ("backbone", "pooling", "specialist_steps", "margin"):
        assert one[name] == RECIPES[PRETRAINED][name]


def test_a_binary_without_recipes_is_unchanged(found):
    assert found["no recipe"] == {"init_weights": "resnet50_imagenet"}


def test_recipes_name_existing_backbones_and_poolings():
    assert RECIPES[PRETRAINED]["backbone"] in BACKBONES
    assert RECIPES[PRETRAINED]["pooling"] in POOLINGS


def test_a_dry_run_of_the_pipeline_logs_the_recipe_and_plans_its_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"not read by a dry run")

    def plan(*arguments):
        drawn = ["--synthetic_verticals=dress,bag", "--synthetic_train_items=6"]
        given = [f"--run_dir={tmp_path / 'run'}", *drawn, "--dry_run", "--nomeasure_speed"]
        done = run_tool("run_pipeline.py", *given, *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        lines = (" ".join(line.split()) for line in done.stdout.splitlines())
        plan = {line.split()[0]: line for line in lines if line}
        return done.stderr, plan

    log, pretrained = plan(f"--init_weights={weights}", "--specialist_steps=7")
    assert f"recipe pretrained (--init_weights={weights}): --backbone=efficientnet_lite_b0" in log
    assert "--specialist_steps" not in log
    steps = 2 * RECIPES[PRETRAINED]["combined_steps"]
    assert f"{steps} steps of 20 x 3 images" in pretrained["combined-start"]
    assert "7 steps of 20 x 3 images" in pretrained["specialist-bag"]
    log, scratch = plan()
    assert "recipe scratch (--init_weights=none)\n" in log
    assert "900 steps of 16 x 4 images" in scratch["combined-start"]
