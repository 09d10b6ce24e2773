"""The pipeline at a tiny size: all stages are real, but the models learn nothing useful."""

import html
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from report_runs import Page, is_drawn
from tiny_flags import TINY
from tiny_run import PLANNED, run_tool

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.embeddings import read_embeddings

pytestmark = pytest.mark.slow

FLAGS = ["--synthetic_verticals=dress,bag", "--synthetic_test_items=4", *TINY]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("pipeline") / "run"
    done = run_tool("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS)
    assert done.returncode == 0, done.stderr[-3000:]
    return run_dir, done


def test_the_summary_has_every_model_scope_and_vertical(walked):
    run_dir, _ = walked
    summary = json.loads((run_dir / "evaluation/summary.json").read_text())

    found = {(row["model"], row["scope"], row["vertical"]) for row in summary["rows"]}
    one_space = ["colour_histogram", "frozen_backbone", "combined", "unified"]
    verticals = ["bag", "dress", "ALL"]
    expected = {(m, s, v) for m in one_space for s in ("within", "merged") for v in verticals}
    expected |= {
        (m, "within", v) for m in ("specialists", "grouped_specialists") for v in verticals
    }
    assert found == expected
    for row in summary["rows"]:
        assert row["queries"] == (24 if row["vertical"] == "ALL" else 12)
        assert 0 <= row["r_at_1_low"] <= row["r_at_1"] <= row["r_at_1_high"] <= 1
        assert row["r_at_1"] <= row["r_at_5"] <= row["r_at_10"] <= row["r_at_20"]
        assert row["items"] == (8 if row["vertical"] == "ALL" else 4)
        assert 0 < row["chance"] < 0.5


def test_the_summary_lists_the_trainings_behind_each_model_with_equal_steps_for_the_baseline(
    walked,
):
    run_dir, done = walked
    summary = json.loads((run_dir / "evaluation/summary.json").read_text())
    costs = {cost["model"]: cost for cost in summary["training_costs"]}

    assert {name: (cost["trainings"], cost["steps"]) for name, cost in costs.items()} == {
        # 6 steps to start from; then 12, like two specialists and the student together.
        "combined": (2, 6 + 12),
        "specialists": (3, 6 + 8),
        "grouped_specialists": (3, 6 + 8),
        "unified": (4, 6 + 8 + 4),
    }
    for cost in costs.values():
        assert cost["seconds"] > 0
        assert cost["multiply_adds"] > 10**6
    assert costs["combined"]["steps"] == costs["unified"]["steps"]
    assert "All trainings behind each model" in done.stdout
    # No verticals share a specialist: the tables do not show the same models twice.
    assert "grouped_specialists" not in done.stdout


def test_a_dry_run_of_a_finished_run_lists_all_stages_as_finished_and_writes_nothing(walked):
    run_dir, _ = walked
    before = {path: path.stat().st_mtime_ns for path in sorted(run_dir.rglob("*"))}
    done = run_tool("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, "--dry_run")

    assert done.returncode == 0, done.stderr[-3000:]
    *stages, end = done.stdout.splitlines()
    # Libraries may print something when they are imported.
    assert [" ".join(line.split()) for line in stages][-13:] == [
        f"{name} finished" for name in PLANNED
    ]
    assert end == "Nothing was run or written (--dry_run)."
    assert {path: path.stat().st_mtime_ns for path in sorted(run_dir.rglob("*"))} == before


def test_the_student_costs_one_model_and_the_specialists_one_each(walked):
    run_dir, _ = walked
    rows = json.loads((run_dir / "evaluation/summary.json").read_text())["rows"]
    cost = {row["model"]: (row["parameters"], row["models_to_deploy"]) for row in rows}

    assert cost["specialists"][1] == 2
    assert cost["unified"][1] == 1
    assert cost["specialists"][0] == 2 * cost["unified"][0]
    assert cost["combined"] == cost["unified"]


def record_of(run_dir, name):
    return json.loads((run_dir / name / "stage.json").read_text())


def test_the_combined_model_for_comparison_continues_for_all_other_steps(walked):
    run_dir, _ = walked
    start, combined = (record_of(run_dir, name) for name in ("combined-start", "combined"))

    assert start["flags"]["optimization"]["steps"] == 6
    assert start["flags"]["start"] == "none"
    assert combined["flags"]["optimization"]["steps"] == 4 + 4 + 4
    assert combined["inputs"]["combined-start"] == start["fingerprint"]
    for one in (start, combined):
        assert one["flags"]["verticals"] == ["bag", "dress"]


def test_specialists_and_student_start_from_the_combined_model_and_keep_it_without_improvement(
    walked,
):
    run_dir, _ = walked
    for name in ("specialist-bag", "specialist-dress", "student", "combined"):
        record = record_of(run_dir, name)
        assert record["flags"]["start"] == "combined-start"
        # Step 0 is validated, too.
        result = record["result"]
        assert 0 <= result["kept_step"] <= result["trained_steps"]
        assert result["trained_steps"] == record["flags"]["optimization"]["steps"]
        assert (run_dir / name / "model/model.weights.h5").is_file()


def test_targets_have_unit_length_and_come_from_rotated_and_selected_teachers(walked):
    run_dir, _ = walked
    dataset = PreparedDataset.open(run_dir / "prepared")
    for file, split in (("targets", "train"), ("held_out", "val")):
        records, targets = read_embeddings(run_dir / f"targets/{file}.parquet")
        np.testing.assert_array_equal(records, dataset.select(split=split))
        np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1.0, atol=1e-5)
        assert targets.shape[1] == 8
    result = record_of(run_dir, "targets")["result"]
    teachers = {entry["name"]: entry for entry in result["teachers"]}
    assert {name: entry["verticals"] for name, entry in teachers.items()} == {
        "specialist-bag": ["bag"],
        "specialist-dress": ["dress"],
        "combined-start": ["bag", "dress"],
    }
    for entry in teachers.values():
        assert entry["cosine_after"] >= entry["cosine_before"] - 1e-5
    # With 3 items, no teacher is significantly better.
    for choice in result["choices"]:
        assert choice["chosen"].startswith("joint")
        assert choice["chosen"] == choice["candidates"][0]["name"]
        names = [one["name"] for one in choice["candidates"][1:]]
        assert names == [f"specialist-{choice['vertical']}", "combined-start"]
        assert (choice["queries"], choice["items"]) == (9, 3)


def test_the_student_records_its_agreement_with_its_teachers(walked):
    run_dir, _ = walked
    result = record_of(run_dir, "student")["result"]

    found = {"r_at_1", "teachers_r_at_1", "error"}
    assert {*result["agreement"]} == {"train", "augmented", "held_out", *found}
    assert all(-1 <= value <= 1 for value in result["agreement"].values())
    page = (run_dir / "report/index.html").read_text("utf-8")
    assert "Who taught the student" in page
    assert html.escape(result["diagnosis"]) in page


def test_the_output_ends_with_the_table_and_the_location_of_the_results(walked):
    run_dir, done = walked

    assert "unified" in done.stdout
    assert f"SavedModel:   {run_dir}/saved_model/1 (the student)" in done.stdout
    assert "\nDeploy:       " in done.stdout
    assert f"Report:       {run_dir}/report/index.html" in done.stdout
    assert f"tensorboard --logdir={run_dir}" in done.stdout
    assert (run_dir / "evaluation/tables.txt").read_text().strip() in done.stdout


def test_no_inputs_are_renamed_or_logged_as_renamed(walked):
    run_dir, done = walked
    assert "unified: training from step 0 to 4" in done.stderr
    assert "will be renamed" not in done.stderr
    signatures = tf.saved_model.load(str(run_dir / "saved_model/1")).signatures
    inputs = {name: [*one.structured_input_signature[1]] for name, one in signatures.items()}
    assert inputs == {"serving_default": ["image_bytes"], "embed_images": ["images"]}


def test_the_saved_model_returns_the_embeddings_of_the_evaluation(walked, tmp_path):
    run_dir, _ = walked
    dataset = PreparedDataset.open(run_dir / "prepared")
    records, expected = read_embeddings(run_dir / "evaluation/embeddings/unified.parquet")
    for number, image in enumerate(dataset.read_images(records[:5])):
        (tmp_path / f"{number}.jpg").write_bytes(image)
    script = f"""
import sys
sys.modules["apparel_embed"] = None
import numpy as np, pathlib, tensorflow as tf
paths = sorted(pathlib.Path({str(tmp_path)!r}).glob("*.jpg"))
images = [path.read_bytes() for path in paths]
images.insert(2, b"not an image")
model = tf.saved_model.load({str(run_dir / "saved_model/1")!r})
found = model.signatures["serving_default"](tf.constant(images))
np.savez({str(tmp_path / "found.npz")!r}, **{{name: one.numpy() for name, one in found.items()}})
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]

    found = np.load(tmp_path / "found.npz")
    np.testing.assert_array_equal(found["valid"], [True, True, False, True, True, True])
    np.testing.assert_array_equal(found["embedding"][2], 0.0)
    np.testing.assert_allclose(found["embedding"][found["valid"]], expected[:5], atol=1e-5)


def test_the_report_shows_the_numbers_of_the_summary_and_is_self_contained(walked):
    run_dir, _ = walked
    text = (run_dir / "report/index.html").read_text("utf-8")
    tables = Page(text).tables
    summary = json.loads((run_dir / "evaluation/summary.json").read_text())
    rows = {(row["model"], row["scope"], row["vertical"]): row for row in summary["rows"]}

    models = ["colour_histogram", "frozen_backbone", "combined", "specialists", "unified"]
    assert [line[0] for line in tables[0][1:]] == models
    for model, r_at_1, *_ in tables[0][1:]:
        row = rows[model, "within", "ALL"]
        low, high = row["r_at_1_low"], row["r_at_1_high"]
        assert r_at_1 == f"{row['r_at_1']:.3f} [{low:.3f}, {high:.3f}]"
    trainings = [line[0] for line in tables[-1][1:]]
    assert trainings == ["combined-start", "bag", "dress", "combined", "unified"]
    assert "http://" not in text
    assert "https://" not in text
    for name in ("gap", "map", "losses", "validation", "ranks-00", "ranks-01"):
        assert is_drawn((run_dir / f"report/{name}.png").read_bytes())


def test_a_second_call_skips_every_stage_and_changes_nothing(walked):
    run_dir, _ = walked
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    done = run_tool("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS)

    assert done.returncode == 0, done.stderr[-3000:]
    # The prepared dataset, two combined models, grouping, two specialists, targets, student,
    # evaluation, export, report and summaries.
    assert done.stderr.count("already finished, skipped") == 12
    after = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert after == before


def test_a_changed_flag_for_an_existing_run_is_a_one_line_error(walked):
    run_dir, _ = walked
    done = run_tool("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, "--margin=0.7")

    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "combined-start was made with --margin=" in last and "now it is 0.7" in last
    assert "stages that depend on them: " in last and "student" in last
    assert "tools/run_pipeline.py --redo_from=" in last
    assert "Traceback" not in done.stderr


def test_no_stage_starts_if_a_later_stage_refuses_a_flag(walked):
    run_dir, _ = walked
    before = {path.name for path in run_dir.iterdir()}
    # A search for other groups would be fine, but the student was made with other steps.
    changes = ["--grouping=all", "--student_steps=5"]
    done = run_tool("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, *changes)

    assert done.returncode == 1
    assert "was made with" in done.stderr.splitlines()[-1]
    assert {path.name for path in run_dir.iterdir()} == before


def test_redo_from_redoes_a_stage_and_all_that_depend_on_it(walked, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(walked[0], run_dir)
    before = {path.parent.name: path.read_text() for path in run_dir.glob("*/stage.json")}
    longer = [f"--run_dir={run_dir}", *FLAGS, "--student_steps=5", "--nomeasure_speed"]
    refused = run_tool("run_pipeline.py", *longer, "--redo_from=student")
    # The steps of the combined model for comparison include the student's.
    assert refused.returncode == 1
    assert "--redo_from=student,combined, which keeps" in refused.stderr.splitlines()[-1]
    assert not (run_dir / "replaced").exists()

    done = run_tool("run_pipeline.py", *longer, "--redo_from=student,combined")
    assert done.returncode == 0, done.stderr[-3000:]
    redone = {"student", "combined", "evaluation", "report", "summaries"}
    assert {path.name for path in (run_dir / "replaced/1").iterdir()} == redone
    for name, record in before.items():
        if name in redone:
            assert (run_dir / "replaced/1" / name / "stage.json").read_text() == record
        assert ((run_dir / name / "stage.json").read_text() != record) == (name in redone)
    assert record_of(run_dir, "student")["result"]["trained_steps"] == 5
    assert (run_dir / "saved_model/2/saved_model.pb").is_file()


def test_single_binaries_find_the_stages_of_the_pipeline(walked):
    run_dir, _ = walked
    for tool, arguments in (
        ("export_targets.py", []),
        ("evaluate.py", []),
        ("export_saved_model.py", []),
    ):
        done = run_tool(tool, f"--run_dir={run_dir}", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "skipped" in done.stderr


def test_the_report_is_rewritten_for_other_flags_and_then_the_same_in_each_call(walked):
    run_dir, _ = walked
    report = run_dir / "report"
    written = []
    for _ in range(2):
        done = run_tool("evaluate.py", f"--run_dir={run_dir}", "--nomeasure_speed")
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"Report:       {report}/index.html" in done.stdout
        names = sorted(path.name for path in report.iterdir() if path.name != "stage.json")
        written.append({name: (report / name).read_bytes() for name in names})
        assert b"images / s" not in written[-1]["index.html"]
        shutil.rmtree(report)

    assert written[0] == written[1]


def test_a_group_of_verticals_is_trained_by_train_specialist(walked):
    run_dir, _ = walked
    others = ("--synthetic", "--processes", "--student", "--combined")
    training = [flag for flag in FLAGS if not flag.startswith(others)]
    done = run_tool(
        "train_specialist.py", f"--run_dir={run_dir}", "--verticals=dress,bag", *training
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert (run_dir / "specialist-bag+dress/model/model.weights.h5").is_file()
    made_with = record_of(run_dir, "specialist-bag+dress")["flags"]
    assert made_with["start"] == "combined-start"
    # As in the pipeline, --specialist_steps is for each vertical.
    assert made_with["optimization"]["steps"] == 2 * 4

    done = run_tool(
        "train_specialist.py", f"--run_dir={run_dir}", "--verticals=dress,hat", *training
    )
    assert done.returncode == 1
    assert "hat" in done.stderr.splitlines()[-1]
    assert "bag, dress" in done.stderr.splitlines()[-1]


def walked_from_specialists(walked, to):
    """Copies a run up to its triplet models, to continue with other flags."""
    for directory in walked[0].iterdir():
        if directory.name.startswith(("prepared", "specialist-", "combined", "grouping", "synth")):
            shutil.copytree(directory, to / directory.name)
    return to


@pytest.mark.parametrize("align_to", ["frozen", "none"])
def test_targets_need_a_combined_model_only_if_they_are_aligned_to_it(walked, tmp_path, align_to):
    run_dir = walked_from_specialists(walked, tmp_path / "run")
    for name in ("combined", "combined-start"):
        shutil.rmtree(run_dir / name)
    done = run_tool(
        "export_targets.py", f"--run_dir={run_dir}", f"--align_to={align_to}", "--seed=5"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "| vertical | taught by" in done.stdout

    targets = record_of(run_dir, "targets")
    assert targets["flags"]["align_to"] == align_to
    assert (targets["flags"]["dim"], targets["flags"]["seed"]) == (8, 5)
    result = targets["result"]
    assert [choice["chosen"] for choice in result["choices"]] == [
        "specialist-bag",
        "specialist-dress",
    ]
    for entry in result["teachers"]:
        assert ("cosine_after" in entry) == (align_to == "frozen")

    refused = run_tool("export_targets.py", f"--run_dir={run_dir}", "--stage=other")
    assert refused.returncode == 1
    assert "--align_to=combined requires the stage" in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize("flag", ["--dry_run", "--nodry_run"])
def test_wrong_initial_weights_are_refused_before_anything_is_drawn(tmp_path, flag):
    weights = tmp_path / "other.h5"
    weights.write_text("not weights")
    given = [f"--run_dir={tmp_path / 'run'}", f"--init_weights={weights}", flag]

    done = run_tool("run_pipeline.py", *FLAGS, *given)

    assert done.returncode == 1
    refusal = done.stderr.splitlines()[-1]
    assert refusal.startswith(f"run_pipeline.py: --init_weights={weights}: expected weights of ")
    assert not list(tmp_path.rglob("*.csv"))
