"""The detector in the binaries: from photographs to a served model that finds garments."""

import json
from pathlib import Path

import numpy as np
import pytest
from street_photographs import make_street, rows_of
from tiny_run import run_tool

from apparel_embed.serving import LocalModel
from apparel_embed.store.record import open_stage

ROOT = Path(__file__).parents[3]
TINY = [
    "--image_size=32",
    "--embedding_dim=4",
    "--items_per_batch=4",
    "--images_per_item=2",
    "--combined_steps=2",
    "--specialist_steps=2",
    "--student_steps=4",
]
DETECTOR = ["--detector_image_size=64", "--detector_steps=90", "--detector_batch_size=8"]

pytestmark = pytest.mark.slow


def call(tool, *arguments, status=0):
    done = run_tool(tool, *arguments)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def street_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("street")
    manifest, run = make_street(directory), directory / "run"
    given = [f"--manifest={manifest}", f"--run_dir={run}", *TINY, "--detector", *DETECTOR]
    plan = call("run_pipeline.py", *given, "--dry_run")
    assert not run.exists()
    call("run_pipeline.py", *given)
    return manifest, run, plan


def test_the_plan_contains_photographs_and_detector(street_run):
    plan = street_run[2]
    assert "photographs" in plan and "40 images" in plan
    assert "90 steps of 8 photographs, out of 24" in plan
    assert "90 detector steps" in plan


def test_evaluation_and_report_contain_the_detectors_results(street_run):
    run = street_run[1]
    record = json.loads((run / "evaluation" / "detection.json").read_text())
    for name in ("ap50", "ap", "r_at_1_detected", "r_at_1_true_boxes", "r_at_1_whole_photograph"):
        assert 0 <= record[name] <= 1
        assert set(record["verticals"]) == {"bags", "dresses"}
    assert record["ap50"] > 0.5
    page = (run / "report" / "index.html").read_text()
    assert "Garments in photographs" in page
    assert (run / "report" / "detection.png").is_file()


def test_the_served_model_finds_garments(street_run):
    manifest, run, _ = street_run
    model = LocalModel(run / "saved_model" / "1")
    assert model.detects
    image = next(
        row["image"] for row in rows_of(manifest) if row["image"].startswith("images/test-0")
    )
    (found,) = model.detect([(manifest.parent / image).read_bytes()])
    assert found.valid
    assert found.boxes.shape == (len(found.verticals), 4)
    assert found.embeddings.shape == (len(found.verticals), 4)
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)


def test_train_detector_finds_the_stage_of_the_pipeline_finished(street_run):
    run = street_run[1]
    before = open_stage(run / "detector")
    assert "student" in before.inputs
    flags = [f"--run_dir={run}", *DETECTOR]
    out = call("train_detector.py", *flags)
    assert str(run / "detector" / "model") in out
    assert "bags, dresses" in out
    assert open_stage(run / "detector").fingerprint == before.fingerprint
    assert "finished" in call("train_detector.py", *flags, "--dry_run")


def test_the_error_for_other_steps_names_the_flag(street_run):
    flags = [f"--run_dir={street_run[1]}", *DETECTOR, "--detector_steps=91"]
    error = call("train_detector.py", *flags, status=1)
    assert "--detector_steps=90, now it is 91" in error


def test_train_detector_has_no_image_size_flag_of_the_embedding_model(tmp_path):
    error = call("train_detector.py", f"--run_dir={tmp_path}", "--image_size=64", status=1)
    assert "Unknown command line flag 'image_size'" in error


def test_a_manifest_without_boxes_is_refused_before_anything_is_trained(tmp_path):
    manifest = make_street(tmp_path, train=1, val=1, test=1)
    lines = [line for line in manifest.read_text().splitlines() if not line[-1].isdigit()]
    manifest.write_text("\n".join(lines) + "\n")
    run = tmp_path / "run"
    given = [f"--manifest={manifest}", f"--run_dir={run}", "--min_images=1", *TINY, "--detector"]
    error = call("run_pipeline.py", *given, *DETECTOR, status=1)
    assert "no row has a box" in error
    assert not (run / "combined-start").exists()
