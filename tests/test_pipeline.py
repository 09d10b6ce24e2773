"""The whole way, tiny: every stage for real, nothing learnt that is worth having."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_runs import Page, is_drawn

from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.embeddings import read_embeddings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FLAGS = [
    "--synthetic_verticals=dress,bag",
    "--synthetic_train_items=6",
    "--synthetic_val_items=3",
    "--synthetic_test_items=4",
    "--synthetic_image_size=48",
    "--processes=1",
    "--image_size=32",
    "--embedding_dim=8",
    "--items_per_batch=4",
    "--pictures_per_item=2",
    "--specialist_steps=4",
    "--student_steps=4",
    "--student_batch_size=8",
    "--validate_every=2",
]


def run(tool, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("pipeline") / "run"
    done = run("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS)
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


def test_a_dry_run_finds_all_finished_and_writes_nothing(walked):
    run_dir, _ = walked
    before = {path: path.stat().st_mtime_ns for path in sorted(run_dir.rglob("*"))}
    done = run("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, "--dry_run")

    assert done.returncode == 0, done.stderr[-3000:]
    *stages, end = done.stdout.splitlines()
    # What a library prints when it is imported may come before.
    assert [" ".join(line.split()) for line in stages][-12:] == [
        f"{name} finished"
        for name in (
            "synthetic",
            "prepared",
            "grouping-each",
            "specialist-bag",
            "specialist-dress",
            "combined",
            "targets",
            "student",
            "evaluation",
            "saved_model/1",
            "report",
            "summaries",
        )
    ]
    assert end == "Nothing was done or written (--dry_run)."
    assert {path: path.stat().st_mtime_ns for path in sorted(run_dir.rglob("*"))} == before


def test_the_student_costs_one_model_and_the_specialists_one_each(walked):
    run_dir, _ = walked
    rows = json.loads((run_dir / "evaluation/summary.json").read_text())["rows"]
    cost = {row["model"]: (row["parameters"], row["models_to_deploy"]) for row in rows}

    assert cost["specialists"][1] == 2
    assert cost["unified"][1] == 1
    assert cost["specialists"][0] == 2 * cost["unified"][0]
    assert cost["combined"] == cost["unified"]


def test_the_combined_model_trains_for_all_specialists_steps(walked):
    run_dir, _ = walked
    record = json.loads((run_dir / "combined/stage.json").read_text())

    assert record["flags"]["optimization"]["steps"] == 8
    assert record["flags"]["verticals"] == ["bag", "dress"]


def test_targets_are_the_specialists_embeddings_but_for_a_rotation(walked):
    run_dir, _ = walked
    dataset = PreparedDataset.open(run_dir / "prepared")
    records, targets = read_embeddings(run_dir / "targets/targets.parquet")

    np.testing.assert_array_equal(records, dataset.select(split="train"))
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1.0, atol=1e-5)
    report = json.loads((run_dir / "targets/stage.json").read_text())["result"]["specialists"]
    for entry in report:
        assert entry["cosine_after"] > entry["cosine_before"]


def test_the_end_tells_the_table_and_where_everything_is(walked):
    run_dir, done = walked

    assert "unified" in done.stdout
    assert f"SavedModel:   {run_dir}/saved_model/1 (the student)" in done.stdout
    assert "\nDeploy:       " in done.stdout
    assert f"Report:       {run_dir}/report/index.html" in done.stdout
    assert f"tensorboard --logdir={run_dir}" in done.stdout
    assert (run_dir / "evaluation/tables.txt").read_text().strip() in done.stdout


def test_the_saved_model_gives_the_embeddings_of_the_evaluation(walked, tmp_path):
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
images.insert(2, b"not a picture")
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


def test_the_report_shows_the_numbers_of_the_summary_and_needs_nothing_else(walked):
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
    assert trainings == ["bag", "dress", "combined", "unified"]
    assert "http://" not in text
    assert "https://" not in text
    for name in ("gap", "map", "losses", "validation", "ranks-00", "ranks-01"):
        assert is_drawn((run_dir / f"report/{name}.png").read_bytes())


def test_a_second_call_skips_every_stage_and_changes_nothing(walked):
    run_dir, _ = walked
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    done = run("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS)

    assert done.returncode == 0, done.stderr[-3000:]
    # Grouping, two specialists, combined, targets, student, evaluation, export, report, summaries.
    assert done.stderr.count("finished before, skipped") == 10
    after = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert after == before


def test_a_changed_flag_under_an_old_run_is_refused_in_one_line(walked):
    run_dir, _ = walked
    done = run("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, "--margin=0.7")

    assert done.returncode == 1
    assert "margin" in done.stderr.splitlines()[-1]
    assert "name another --run_dir" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_flags_that_a_later_stage_refuses_begin_no_stage(walked):
    run_dir, _ = walked
    before = {path.name for path in run_dir.iterdir()}
    # Other groups may be searched for, but the student was made with other steps.
    changes = ["--grouping=all", "--student_steps=5"]
    done = run("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, *changes)

    assert done.returncode == 1
    assert "was made with" in done.stderr.splitlines()[-1]
    assert {path.name for path in run_dir.iterdir()} == before


def test_the_single_binaries_find_what_the_pipeline_left(walked):
    run_dir, _ = walked
    for tool, arguments in (
        ("export_targets.py", []),
        ("evaluate.py", []),
        ("export_saved_model.py", []),
    ):
        done = run(tool, f"--run_dir={run_dir}", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "skipped" in done.stderr


def test_the_report_is_made_anew_for_other_flags_and_then_the_same_at_each_call(walked):
    run_dir, _ = walked
    report = run_dir / "report"
    written = []
    for _ in range(2):
        done = run("evaluate.py", f"--run_dir={run_dir}", "--nomeasure_speed")
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"Report:       {report}/index.html" in done.stdout
        names = sorted(path.name for path in report.iterdir() if path.name != "stage.json")
        written.append({name: (report / name).read_bytes() for name in names})
        assert b"images / s" not in written[-1]["index.html"]
        shutil.rmtree(report)

    assert written[0] == written[1]


def test_a_group_of_verticals_is_trained_by_its_own_binary(walked):
    run_dir, _ = walked
    training = [f for f in FLAGS if not f.startswith(("--synthetic", "--processes", "--student"))]
    done = run("train_specialist.py", f"--run_dir={run_dir}", "--verticals=dress,bag", *training)

    assert done.returncode == 0, done.stderr[-2000:]
    assert (run_dir / "specialist-bag+dress/model/model.weights.h5").is_file()

    done = run("train_specialist.py", f"--run_dir={run_dir}", "--verticals=dress,hat", *training)
    assert done.returncode == 1
    assert "hat" in done.stderr.splitlines()[-1]
    assert "bag, dress" in done.stderr.splitlines()[-1]


def test_verticals_given_as_a_group_share_a_specialist_that_teaches_the_student(tmp_path):
    flags = [flag for flag in FLAGS if not flag.startswith("--synthetic_verticals")]
    flags += ["--synthetic_verticals=dress,bag,skirt", "--nomeasure_speed"]
    groups = ["--grouping=given", "--groups=dress+skirt", "--synthetic_unlabelled_items=2"]
    done = run("run_pipeline.py", f"--run_dir={tmp_path}", *flags, *groups)

    assert done.returncode == 0, done.stderr[-3000:]
    grouping = json.loads((tmp_path / "grouping-given/groups.json").read_text())
    assert grouping["groups"] == [["dress", "skirt"], ["bag"]]
    report = json.loads((tmp_path / "targets/stage.json").read_text())["result"]["specialists"]
    assert [entry["verticals"] for entry in report] == [["dress", "skirt"], ["bag"]]
    # 6 items of 5 pictures, and 2 without label.
    assert [entry["pictures"] for entry in report] == [80, 40]
    assert [entry["unlabelled"] for entry in report] == [20, 10]
    student = json.loads((tmp_path / "student/stage.json").read_text())["result"]
    assert (student["train_pictures"], student["unlabelled_pictures"]) == (120, 30)
    group = json.loads((tmp_path / "specialist-dress+skirt/stage.json").read_text())
    assert group["flags"]["optimization"]["steps"] == 8
    assert group["result"]["train_pictures"] == 60
    rows = json.loads((tmp_path / "evaluation/summary.json").read_text())["rows"]
    deployed = {row["model"]: row["models_to_deploy"] for row in rows}
    assert deployed["grouped_specialists"] == 2
    # Not every vertical has a specialist of its own.
    assert "specialists" not in deployed
    assert "grouped_specialists" in (tmp_path / "report/index.html").read_text()

    again = run("evaluate.py", f"--run_dir={tmp_path}", "--nomeasure_speed")
    assert again.returncode == 0, again.stderr[-2000:]
    assert "evaluation: finished before, skipped" in again.stderr

    for arguments, said in (
        ([], "120 pictures, 30 of them unlabelled"),
        (["--nouse_unlabelled", "--stage=targets-labelled"], "90 pictures"),
    ):
        done = run("export_targets.py", f"--run_dir={tmp_path}", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"({said})" in done.stdout
        assert ("skipped" in done.stderr) == (not arguments)


def test_one_group_of_all_is_the_combined_model_trained_once_and_specialists_compare(tmp_path):
    flags = [*FLAGS, "--nomeasure_speed", "--grouping=all", "--compare_specialists"]
    done = run("run_pipeline.py", f"--run_dir={tmp_path}", *flags)

    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "evaluation/summary.json").read_text())["rows"]
    found = {row["model"]: row for row in rows if row["vertical"] == "ALL"}
    assert found["specialists"]["models_to_deploy"] == 2
    assert found["grouped_specialists"]["models_to_deploy"] == 1
    assert found["grouped_specialists"]["r_at_1"] == found["combined"]["r_at_1"]
    stages = [tmp_path / name / "stage.json" for name in ("combined", "specialist-bag+dress")]
    combined, group = (json.loads(path.read_text()) for path in stages)
    # The group came first; the other is a copy, by its own name.
    assert combined == {**group, "stage": "combined"}


def walked_from_specialists(walked, to):
    """Copies a run up to its triplet models, from where other flags may go on."""
    for directory in walked[0].iterdir():
        if directory.name.startswith(("prepared", "specialist-", "combined", "grouping", "synth")):
            shutil.copytree(directory, to / directory.name)
    return to


def test_targets_are_aligned_to_an_earlier_student_by_pipeline_and_binaries_alike(walked, tmp_path):
    run_dir = walked_from_specialists(walked, tmp_path / "run")
    apart = "--separate_groups=0.5"
    done = run("run_pipeline.py", f"--run_dir={run_dir}", *FLAGS, "--align_to=student", apart)
    assert done.returncode == 0, done.stderr[-3000:]

    targets = json.loads((run_dir / "targets/stage.json").read_text())
    assert targets["flags"]["align_to"] == "student-unaligned"
    for entry in targets["result"]["specialists"]:
        assert entry["cosine_after"] > entry["cosine_before"]
    earlier, last = (
        json.loads((run_dir / name / "stage.json").read_text())
        for name in ("student-unaligned", "student")
    )
    assert "targets-unaligned" in earlier["inputs"]
    assert "targets" in last["inputs"]
    assert earlier["flags"]["model"].pop("embedding_dim") == 8
    # Two groups.
    assert last["flags"]["model"].pop("embedding_dim") == 8 + 2
    assert earlier["flags"] == last["flags"]
    _, unified = read_embeddings(run_dir / "evaluation/embeddings/unified.parquet")
    assert unified.shape[1] == 10
    for arguments in (
        ["--align_to=none", "--stage=targets-unaligned"],
        ["--align_to=student", apart],
    ):
        done = run("export_targets.py", f"--run_dir={run_dir}", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "skipped" in done.stderr
    assert f"--run_dir={run_dir} --embedding_dim=10" in done.stdout


@pytest.mark.parametrize(
    ("align_to", "recorded"), [("frozen", "frozen"), ("first", "specialist-bag")]
)
def test_targets_are_aligned_where_there_is_no_combined_model(walked, tmp_path, align_to, recorded):
    run_dir = walked_from_specialists(walked, tmp_path / "run")
    shutil.rmtree(run_dir / "combined")
    arguments = [f"--align_to={align_to}", "--target_views=2", "--seed=5"]
    done = run("export_targets.py", f"--run_dir={run_dir}", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]

    targets = json.loads((run_dir / "targets/stage.json").read_text())
    assert targets["flags"]["align_to"] == recorded
    assert (targets["flags"]["views"], targets["flags"]["seed"]) == (2, 5)
    assert targets["flags"]["augment"]["flip"] is True
    assert all(entry["cosine_after"] > 0 for entry in targets["result"]["specialists"])
