"""A run that grows from another, and one that is aligned to it: tiny, but with real stages."""

import json

import numpy as np
import pytest
from tiny_flags import TINY
from tiny_run import run_tool

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.embeddings import read_embeddings

pytestmark = pytest.mark.slow

FLAGS = ["--synthetic_test_items=6", "--nomeasure_speed", *TINY]
OLD, ALL = ("--synthetic_verticals=dress,bag", "--synthetic_verticals=dress,bag,skirt")


def run(tool, *arguments):
    done = run_tool(tool, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def refused(tool, *arguments):
    done = run_tool(tool, *arguments)
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def record_of(run_dir, name):
    return json.loads((run_dir / name / "stage.json").read_text())


def growth_of(run_dir):
    return json.loads((run_dir / "evaluation/growth.json").read_text())


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "old"
    run("run_pipeline.py", f"--run_dir={run_dir}", OLD, *FLAGS)
    return run_dir


@pytest.fixture(scope="module")
def grown(old):
    """The directory of the run, its plan, and its output."""
    run_dir = old.with_name("grown")
    command = (
        "run_pipeline.py", f"--run_dir={run_dir}", ALL, f"--grow_from={old}",
        f"--growth_compare_to={old}", "--replay=0.3", *FLAGS,
    )  # fmt: skip
    plan = run(*command, "--dry_run")
    assert not run_dir.exists()
    printed = run(*command)
    made = {path: path.read_bytes() for path in run_dir.glob("*/stage.json")}
    run(*command)
    assert made == {path: path.read_bytes() for path in run_dir.glob("*/stage.json")}
    return run_dir, plan, printed


def test_only_teachers_of_the_new_vertical_are_trained_from_the_old_student(old, grown):
    run_dir, plan, _ = grown
    trained = ("combined-start", "specialist-skirt", "student")
    existing = sorted(path.parent.name for path in run_dir.glob("*/model"))
    assert existing == sorted(trained)
    assert all(name in plan for name in ("prepared-new", "prepared ", *trained))
    assert record_of(run_dir, "combined-start")["flags"]["verticals"] == ["skirt"]
    assert record_of(run_dir, "student")["flags"]["more_often"] == {"skirt": 3.0}
    assert "more_often" not in record_of(old, "student")["flags"]
    fingerprint = record_of(old, "student")["fingerprint"]
    for name in ("combined-start", "student"):
        assert record_of(run_dir, name)["inputs"]["init_from"] == fingerprint, name


def test_old_images_keep_their_targets_and_new_ones_follow(old, grown):
    run_dir, *_ = grown
    before, after = (PreparedDataset.open(one / "prepared") for one in (old, run_dir))
    counts = after.info["counts"]
    for vertical in ("bag", "dress"):
        theirs = before.info["counts"][vertical]
        assert counts[vertical]["train"] == round(0.3 * theirs["train"])
        assert {**counts[vertical], "train": 0} == {**theirs, "train": 0}
    for file, splits in (("targets.parquet", ("train",)), ("held_out.parquet", ("val",))):
        records, targets = read_embeddings(run_dir / "targets" / file)
        selected = np.concatenate([after.select(split=split) for split in splits])
        np.testing.assert_array_equal(records, selected)
        kept = dict(zip(*read_embeddings(old / "targets" / file)))
        images = {image: record for record, image in enumerate(before.column("image"))}
        for record, target in zip(records, targets):
            if after.column("vertical")[record] != "skirt":
                expected = kept[images[after.column("image")[record]]]
                np.testing.assert_array_equal(target, expected)
    assert record_of(run_dir, "targets")["flags"]["old_targets"] == "kept"


def test_growth_is_measured_and_printed(old, grown):
    run_dir, _, printed = grown
    found = growth_of(run_dir)

    assert found["old_verticals"] == ["bag", "dress"]
    assert found["new_verticals"] == ["skirt"]
    change, difference = found["old_verticals_change"], found["new_vertical_difference"]
    r_at_1 = {name: found[name]["r_at_1"] for name in ("old_on_old", "new_on_new")}
    expected = r_at_1["new_on_new"] - r_at_1["old_on_old"]
    assert change["difference"] == pytest.approx(expected)
    for one in (change, difference, found["new_on_old_difference"]):
        assert -1 <= one["low"] <= one["difference"] <= one["high"] <= 1
    rows = json.loads((old / "evaluation/summary.json").read_text())["rows"]
    (theirs,) = (
        row["r_at_1"]
        for row in rows
        if (row["model"], row["scope"], row["vertical"]) == ("unified", "within", "ALL")
    )
    assert r_at_1["old_on_old"] == pytest.approx(theirs)
    # Half of one vertical's combined model, its specialist and the student; then all for two.
    assert found["cost_ratio"]["grown"]["steps"] == 2 + 4 + 4
    assert found["cost_ratio"]["steps"] == pytest.approx(10 / (6 + 2 * 4 + 4))
    assert "old_verticals_change: " in printed
    assert "of the training seconds" in printed


def test_evaluate_keeps_the_comparison_of_the_pipeline_and_does_not_lose_it(old, grown, tmp_path):
    run_dir, *_ = grown
    evaluate = ("evaluate.py", f"--run_dir={run_dir}", "--nomeasure_speed")
    made = {path: path.read_bytes() for path in run_dir.glob("evaluation/*.json")}
    run(*evaluate)
    old.rename(tmp_path / "away")
    try:
        assert "evaluation: was made from another gallery_model" in refused(*evaluate)
    finally:
        (tmp_path / "away").rename(old)
    assert made == {path: path.read_bytes() for path in run_dir.glob("evaluation/*.json")}


def test_growing_without_a_new_vertical_is_refused(old):
    command = ("run_pipeline.py", f"--run_dir={old.with_name('none')}", OLD, *FLAGS)
    message = refused(*command, f"--grow_from={old}")
    assert f"--grow_from={old}: already has all verticals of the manifest (bag, dress)" in message
    assert f"use --align_to={old} instead" in message
    assert not old.with_name("none").exists()


def test_a_new_student_searches_the_old_index(old):
    run_dir = old.with_name("spring")
    command = (
        "run_pipeline.py", f"--run_dir={run_dir}", OLD, f"--align_to={old}", "--seed=1", *FLAGS,
    )  # fmt: skip
    run(*command)
    found = growth_of(run_dir)
    assert found["new_verticals"] == []
    assert found["new_vertical_difference"] is None
    for name in ("old_on_old", "new_on_old", "new_on_new"):
        assert found[name]["queries"] > 0
    rows = json.loads((run_dir / "evaluation/summary.json").read_text())["rows"]
    assert {"specialists", "combined", "unified"} <= {row["model"] for row in rows}

    # With the same architecture, it starts from the old student unless a flag says otherwise.
    student = record_of(run_dir, "student")
    assert student["inputs"]["init_from"] == record_of(old, "student")["fingerprint"]
    message = refused(*command, "--student_start=combined", "--dry_run")
    assert "was made with start='init_from', now it is 'combined-start'" in message

    # The reverse is refused: see tests/search/test_matching.py.
    run("build_index.py", f"--run_dir={old}")
    image = next((old / "synthetic").rglob("*.jpg"))
    search = ("search.py", f"--run_dir={old}", f"--image={image}")
    assert "distance" in run(*search, f"--saved_model={run_dir}/saved_model/1")
