"""The recipes of training in two steps, tiny: garments of one world, then of another."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from apparel_embed.models.embedding import load_embedding_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TINY = [
    "--synthetic_verticals=dress,bag",
    "--synthetic_train_items=4",
    "--synthetic_val_items=2",
    "--synthetic_test_items=2",
    "--synthetic_image_size=48",
    "--processes=1",
    "--nomeasure_speed",
    "--backbone=small_cnn",
    "--image_size=32",
    "--embedding_dim=8",
    "--items_per_batch=4",
    "--pictures_per_item=2",
    "--combined_steps=2",
    "--specialist_steps=2",
    "--student_steps=2",
    "--student_batch_size=8",
]
# In the second step nothing is learnt, so that models show what they started from.
SECOND = [
    "--synthetic_seed=2",
    "--combined_learning_rate=0",
    "--specialist_learning_rate=0",
    "--student_learning_rate=0",
]
SOURCES = {
    "specialist-bag": "specialist-bag",
    "specialist-dress": "combined",
    "combined-start": "combined",
    "student": "student",
}


def pipeline(recipe, *arguments):
    command = [sys.executable, "tools/run_pipeline.py", f"--flagfile=flags/{recipe}.flags"]
    return subprocess.run(
        [*command, *TINY, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Both steps; of the first one's specialists one is gone, as if it had no such vertical."""
    noisy, clean = (tmp_path_factory.mktemp("steps") / name for name in ("noisy", "clean"))
    done = pipeline("noisy", f"--run_dir={noisy}", "--synthetic_seed=1")
    assert done.returncode == 0, done.stderr[-3000:]
    (noisy / "specialist-dress").rename(noisy.parent / "specialist-dress")
    before = contents(noisy)
    second = [f"--run_dir={clean}", f"--init_from={noisy}", *SECOND]
    done = pipeline("clean", *second)
    assert done.returncode == 0, done.stderr[-3000:]
    assert contents(noisy) == before
    return noisy, clean, second, done


def test_every_model_starts_from_that_of_the_same_role_in_the_first_step(walked):
    noisy, clean, _, done = walked
    for name, source in SOURCES.items():
        kept, _ = load_embedding_model(clean / name / "model")
        start, _ = load_embedding_model(noisy / source / "model")
        for ours, expected in zip(kept.trainable_variables, start.trainable_variables):
            np.testing.assert_array_equal(ours.numpy(), expected.numpy())
        record, made_from = (
            json.loads((path / "stage.json").read_text()) for path in (clean / name, noisy / source)
        )
        assert record["inputs"]["init_from"] == made_from["fingerprint"]
        assert record["result"]["started_from"] == str(noisy / source)
        assert f"{name}: starts from {noisy / source}" in done.stderr
    # The combined model to compare with goes on from that of its own run.
    kept, start = (
        load_embedding_model(clean / name / "model")[0] for name in ("combined", "combined-start")
    )
    for ours, expected in zip(kept.trainable_variables, start.trainable_variables):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())
    worlds = [json.loads((run / "prepared/dataset.json").read_text()) for run in (noisy, clean)]
    assert worlds[0]["fingerprint"] != worlds[1]["fingerprint"]


def test_the_frozen_backbone_to_compare_with_has_its_initial_weights_in_both_steps(walked):
    for run_dir in walked[:2]:
        inputs = json.loads((run_dir / "evaluation/stage.json").read_text())["inputs"]
        assert inputs["init_weights"] == "none"
        assert "init_from" not in inputs


def test_the_second_step_called_again_skips_every_stage(walked):
    _, clean, second, _ = walked
    before = contents(clean)
    done = pipeline("clean", *second)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("finished before, skipped") == 11
    assert contents(clean) == before
