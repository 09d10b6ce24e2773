"""Trains on every image of a catalogue in which one vertical is too small for a specialist."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_run import run_tool

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TRAINING = [
    "--image_size=32",
    "--embedding_dim=8",
    "--items_per_batch=4",
    "--images_per_item=2",
    "--combined_steps=2",
    "--specialist_steps=2",
    "--student_steps=2",
    "--student_batch_size=8",
    "--processes=1",
]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """Returns the run directory of a catalogue of five bags, five tops and one hat, all train."""
    directory = tmp_path_factory.mktemp("catalogue")
    random = np.random.default_rng(0)
    items = [(f"{vertical}{n}", vertical) for vertical in ("bag", "top") for n in range(5)]
    with open(directory / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "item_id", "vertical", "split"])
        for item, vertical in [*items, ("hat0", "hat")]:
            for number in range(2):
                name = f"{item}_{number}.png"
                Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(
                    directory / name
                )
                table.writerow([name, item, vertical, "train"])
    return directory / "run"


def walk(run_dir, *arguments):
    manifest = run_dir.parent / "manifest.csv"
    given = [f"--run_dir={run_dir}", f"--manifest={manifest}", "--val_fraction=0", *TRAINING]
    return run_tool("run_pipeline.py", *given, *arguments)


def test_missing_data_is_reported_before_anything_is_trained(run_dir):
    refused = walk(run_dir, "--small_verticals=refuse")
    assert refused.returncode == 1
    assert "fewer than 2 items of 2 images or more in split train: hat 1." in refused.stderr
    assert not list(run_dir.glob("combined*"))

    planned = walk(run_dir, "--dry_run", "--nomeasure_speed")
    assert planned.returncode == 0, planned.stderr[-3000:]
    assert "hat 1. They keep the combined model" in planned.stdout
    assert "nothing is measured" in planned.stdout
    assert "evaluation" not in planned.stdout and "saved_model/1" in planned.stdout


def test_everything_is_trained_and_exported_and_no_evaluation_is_reported(run_dir):
    done = walk(run_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nothing: split test has no query with a match" in done.stdout
    assert not (run_dir / "evaluation").exists() and not (run_dir / "report").exists()
    served = tf.saved_model.load(str(run_dir / "saved_model/1")).signatures["serving_default"]
    image = (run_dir.parent / "hat0_0.png").read_bytes()
    answer = served(image_bytes=tf.constant([image]))
    assert answer["valid"].numpy().tolist() == [True]
    assert np.linalg.norm(answer["embedding"]) == pytest.approx(1, abs=1e-5)

    hat = json.loads((run_dir / "specialist-hat/stage.json").read_text())["result"]
    assert (hat["trained_steps"], hat["kept_step"]) == (0, 0)

    evaluated = run_tool("evaluate.py", f"--run_dir={run_dir}")
    assert evaluated.returncode == 1
    assert "split test has no query with a match" in evaluated.stderr.splitlines()[-1]
