"""Tiny whole runs with unusual groups and splits."""

import json

import pytest
from tiny_flags import TINY
from tiny_run import run_tool

pytestmark = pytest.mark.slow

FLAGS = ["--synthetic_verticals=dress,bag", "--synthetic_test_items=4", *TINY]


def test_verticals_of_a_given_group_share_a_specialist_that_teaches_the_student(tmp_path):
    flags = [flag for flag in FLAGS if not flag.startswith("--synthetic_verticals")]
    flags += ["--synthetic_verticals=dress,bag,skirt", "--nomeasure_speed"]
    groups = ["--grouping=given", "--groups=dress+skirt", "--synthetic_unlabelled_items=2"]
    flags += ["--nosingle_specialists"]
    done = run_tool("run_pipeline.py", f"--run_dir={tmp_path}", *flags, *groups)

    assert done.returncode == 0, done.stderr[-3000:]
    grouping = json.loads((tmp_path / "grouping-given/groups.json").read_text())
    assert grouping["groups"] == [["dress", "skirt"], ["bag"]]
    report = json.loads((tmp_path / "targets/stage.json").read_text())["result"]["teachers"]
    # The group, the single vertical, and the model that all start from.
    assert [entry["name"] for entry in report] == [
        "specialist-dress+skirt",
        "specialist-bag",
        "combined-start",
    ]
    # Per vertical, 6 items with 5 images each, and 2 unlabelled items.
    assert [entry["images"] for entry in report] == [80, 40, 120]
    assert [entry["unlabelled"] for entry in report] == [20, 10, 30]
    student = json.loads((tmp_path / "student/stage.json").read_text())["result"]
    assert (student["train_images"], student["unlabelled_images"]) == (120, 30)
    group = json.loads((tmp_path / "specialist-dress+skirt/stage.json").read_text())
    assert group["flags"]["optimization"]["steps"] == 8
    assert group["result"]["train_images"] == 60
    rows = json.loads((tmp_path / "evaluation/summary.json").read_text())["rows"]
    deployed = {row["model"]: row["models_to_deploy"] for row in rows}
    assert deployed["grouped_specialists"] == 2
    # Not every vertical has its own specialist.
    assert "specialists" not in deployed
    assert "grouped_specialists" in (tmp_path / "report/index.html").read_text()

    again = run_tool("evaluate.py", f"--run_dir={tmp_path}", "--nomeasure_speed")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "evaluation: already finished, skipped" in again.stderr

    for arguments, images in (
        ([], "120 images, 30 of them unlabelled"),
        (["--nouse_unlabelled", "--stage=targets-labelled"], "90 images"),
    ):
        done = run_tool("export_targets.py", f"--run_dir={tmp_path}", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"({images})" in done.stdout
        assert ("skipped" in done.stderr) == (not arguments)


def test_without_a_split_val_part_of_train_is_held_out_for_validation(tmp_path):
    manifest = tmp_path / "drawn/manifest.csv"
    done = run_tool(
        "make_synthetic_dataset.py",
        f"--output={manifest.parent}",
        *(flag for flag in FLAGS if flag.startswith(("--synthetic", "--processes"))),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = manifest.read_text().splitlines(keepends=True)
    column = lines[0].strip().split(",").index("split")
    kept = [line for line in lines if line.strip().split(",")[column] != "val"]
    assert len(kept) < len(lines)
    manifest.write_text("".join(kept))
    training = [flag for flag in FLAGS if not flag.startswith("--synthetic")]
    arguments = [f"--run_dir={tmp_path / 'run'}", f"--manifest={manifest}", *training]
    done = run_tool("run_pipeline.py", *arguments, "--dry_run")
    assert done.returncode == 0, done.stderr[-3000:]
    # 6 items in each of 2 verticals; a share of 0.15 is one item each.
    assert "steps of 4 x 2 images, out of 25" in done.stdout
    assert "Training will take about 0:00:" in done.stdout
    arguments.append("--nomeasure_speed")
    done = run_tool("run_pipeline.py", *arguments, "--val_fraction=0", "--dry_run")
    assert "Training will take" not in done.stdout
    assert "steps of 4 x 2 images, out of 30" in done.stdout
