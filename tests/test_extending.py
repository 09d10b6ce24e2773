"""Runs the binaries with one extension of each kind, registered in `extensions`."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# Runs a binary with the extensions registered.
EXTENDED = (
    "import runpy, sys, extensions.registered; sys.argv.pop(0); "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
TINY = [
    "--backbone=one_convolution",
    "--loss=info_nce",
    "--temperature=0.2",
    "--enough_images=3",
    "--processes=1",
    "--image_size=32",
    "--embedding_dim=4",
    "--items_per_batch=4",
    "--images_per_item=2",
    "--combined_steps=2",
    "--specialist_steps=2",
    "--student_steps=2",
    "--student_batch_size=8",
    "--validate_every=2",
    "--nomeasure_speed",
]


def run(tool, *arguments, expected=0):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", EXTENDED, ROOT / "tools" / tool, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == expected, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def manifest(tiny_prepared):
    """A manifest written by the new layout's importer, from a list with another name."""
    root = tiny_prepared.directory.parent
    with open(root / "manifest.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("vertical", "item_id", "image", "split")
    lines = [" ".join(row[name] for name in names) for row in rows]
    (root / "mine.txt").write_text("\n".join(lines), "utf-8")
    output = root / "imported.csv"
    found = [f"--root={root}", f"--output={output}"]
    run("import_dataset.py", "--format=listing", "--listing=mine.txt", *found)
    refused = run("import_dataset.py", "--format=folders", "--listing=x", *found, expected=1)
    assert "--listing does not apply to --format=folders; it is for --format" in refused.stderr
    with open(output, encoding="utf-8", newline="") as file:
        imported = list(csv.DictReader(file))
    assert [[row[name] for name in names] for row in imported] == [
        [row[name] for name in names] for row in rows
    ]
    return output


@pytest.fixture(scope="module")
def walked(manifest):
    run_dir = manifest.parent / "run"
    flags = [f"--manifest={manifest}", f"--run_dir={run_dir}", *TINY]
    planned = run("run_pipeline.py", *flags, "--dry_run").stdout
    run("run_pipeline.py", *flags)
    return run_dir, planned, run("run_pipeline.py", *flags, "--dry_run").stdout


def test_parameters_of_loss_and_stage_are_flags():
    text = run("run_pipeline.py", "--help").stdout
    for flag in (
        r"temperature=0.1 +temperature of InfoNCE \(0.001 to 10\)",
        r"enough_images=2 +images with which an item counts as known \(1 or more\)",
        r"loss=semi_hard +semi_hard \|[^:]* info_nce",
        r"backbone=small_cnn +small_cnn \|[^:]* one_convolution",
    ):
        assert re.search(f"^  --{flag}", text, re.MULTILINE), flag


def test_a_model_with_the_new_backbone_is_trained_with_the_new_loss_and_its_parameter(walked):
    run_dir, _, _ = walked
    record = json.loads((run_dir / "specialist-bags/stage.json").read_text())
    assert record["flags"]["model"]["backbone"] == "one_convolution"
    assert record["flags"]["loss"] == {
        "name": "info_nce", "margin": 0.3, "distance": "L2", "temperature": 0.2,
    }  # fmt: skip
    assert record["result"]["trained_steps"] == 2
    # 4 x 4 x 3 x 6 + 6 in the convolution, 6 x 4 + 4 in the projection.
    assert record["result"]["parameters"] == 294 + 28


def test_the_new_stage_is_planned_made_and_found_again(walked):
    run_dir, before, after = walked
    assert re.search(r"^known-items +to do +64 images to count$", before, re.MULTILINE)
    assert re.search(r"^known-items +finished$", after, re.MULTILINE)
    assert (run_dir / "known-items/known.txt").read_text() == "16\n"


def test_the_new_index_is_filled_and_searched(walked, manifest):
    run_dir, _, _ = walked
    where = [f"--run_dir={run_dir}", f"--index_uri=pickle://{run_dir / 'index.pickle'}"]
    run("build_index.py", *where)
    with open(manifest, encoding="utf-8", newline="") as file:
        query = next(row for row in csv.DictReader(file) if row["split"] == "test")
    image = f"--image={manifest.parent / query['image']}"
    found = run("search.py", *where, image, "--k=1").stdout
    assert query["image"] in found or query["item_id"] in found
