from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_runs import make_dataset, make_evaluation

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json
from apparel_embed.evaluation.models import Embedded
from apparel_embed.evaluation.protocol import compare_models, query_outcomes, summary_rows
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.table import render_runs
from apparel_embed.runs.comparison import compare_runs, write_comparison
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import run_stage

ROOT = Path(__file__).parents[2]
NOISE = {"combined": 0.9, "specialists": 0.6, "unified": 0.7}


def make_models(dataset, seed, names=tuple(NOISE), split="test"):
    """Returns models whose embeddings are an item's direction plus noise."""
    images = evaluation_set(dataset, split)
    random = np.random.default_rng(seed)
    _, item = np.unique(images.items.astype(str), return_inverse=True)
    centres = np.random.default_rng(0).normal(size=(item.max() + 1, 4))
    models = {}
    for name in names:
        noise = NOISE.get(name, 1.5) * random.normal(size=(len(images), 4))
        alone = "specialists" in name
        models[name] = Embedded(
            (centres[item] + noise).astype(np.float32), 1000, 2 if alone else 1, not alone
        )
    return models


class Runs:
    """Two seeds on one dataset (s0, s1), and one run on another (new), next to their datasets."""

    def __init__(self, directory):
        self.directory = directory
        items = [(f"i{number}", ("bags", "tops")[number % 2], 2) for number in range(12)]
        self.dataset = make_dataset(directory / "data", items)
        # The same names, but different images.
        self.newer = make_dataset(directory / "data-new", items[:6] + items[8:], seed=1)
        self.models = {}
        for name, dataset, seed in (
            ("s0", self.dataset, 1), ("s1", self.dataset, 2), ("new", self.newer, 3),
        ):  # fmt: skip
            self.add(name, dataset, seed)

    def add(self, name, dataset, seed, prepared=True, **options):
        run_dir = self.directory / name
        names = options.pop("names", tuple(NOISE))
        split = options.get("split", "test")
        self.models[name] = make_models(dataset, seed, names, split)
        make_evaluation(run_dir, dataset, self.models[name], training_seed=seed, **options)
        if prepared:
            (run_dir / "prepared").symlink_to(dataset.directory.resolve())
        return run_dir

    def outcomes(self, run, model, scope="within"):
        dataset = self.newer if run == "new" else self.dataset
        images = evaluation_set(dataset, "test")
        return query_outcomes(self.models[run][model].embeddings, images, scope)

    def __getitem__(self, names):
        return [self.directory / name for name in names]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def new_runs(runs, tmp_path):
    """A copy of the runs that a test may change."""
    copy = object.__new__(Runs)
    copy.__dict__ = {**runs.__dict__, "directory": tmp_path, "models": dict(runs.models)}
    for name in ("s0", "s1", "new"):
        shutil.copytree(runs.directory / name, tmp_path / name, symlinks=True)
    return copy


def by_key(record):
    return {(row["model"], row["scope"]): row for row in record["rows"]}


def all_of(outcomes):
    return next(row for row in summary_rows(outcomes) if row["vertical"] == "ALL")


def test_seeds_are_averaged_and_each_run_has_the_figures_of_its_summary(runs):
    record = compare_runs(runs["s0", "s1"])
    rows = by_key(record)

    assert list(rows) == [
        ("combined", "within"), ("combined", "merged"), ("specialists", "within"),
        ("unified", "within"), ("unified", "merged"),
    ]  # fmt: skip
    for (model, scope), row in rows.items():
        summaries = [
            next(
                one["r_at_1"]
                for one in read_json(run / "evaluation/summary.json")["rows"]
                if (one["model"], one["scope"], one["vertical"]) == (model, scope, "ALL")
            )
            for run in runs["s0", "s1"]
        ]
        assert row["r_at_1_runs"] == pytest.approx(summaries)
        assert row["r_at_1"] == pytest.approx(np.mean(summaries))
        assert row["r_at_1_low"] <= row["r_at_1"] <= row["r_at_1_high"]
        assert (row["strata"], row["queries"]) == (2, 24)
    assert rows["unified", "within"]["r_at_1_std"] > 0
    assert (record["schema_version"], record["split"]) == (1, "test")
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_another_dataset_is_a_separate_stratum(runs):
    record = compare_runs(runs["s0", "new", "s1"])
    row = by_key(record)["unified", "merged"]

    single = [
        all_of(runs.outcomes(run, "unified", "merged"))["r_at_1"] for run in ("s0", "new", "s1")
    ]
    assert row["r_at_1_runs"] == pytest.approx(single)
    assert row["r_at_1"] == pytest.approx((np.mean([single[0], single[2]]) + single[1]) / 2)
    assert (row["strata"], row["queries"]) == (4, 24 + 20)
    fingerprints = [runs.dataset.fingerprint, runs.newer.fingerprint, runs.dataset.fingerprint]
    assert [one["dataset"] for one in record["runs"]] == fingerprints
    assert [one["run"] for one in record["runs"]] == [str(run) for run in runs["s0", "new", "s1"]]


def test_the_model_pairs_of_the_evaluation_are_compared_on_the_same_queries(runs):
    record = compare_runs(runs["s0", "new"])

    pairs = [(one["model"], one["minus"]) for one in record["comparisons"]]
    assert pairs == [
        ("unified", "specialists"), ("unified", "combined"), ("specialists", "combined"),
    ]  # fmt: skip
    for (first, second), found in zip(pairs, record["comparisons"]):
        expected = [
            compare_models(runs.outcomes(run, first), runs.outcomes(run, second))["ALL"].difference
            for run in ("s0", "new")
        ]
        assert found["difference_runs"] == pytest.approx(expected)
        assert found["difference"] == pytest.approx(np.mean(expected))
        assert found["low"] <= found["difference"] <= found["high"]


def test_the_seed_only_changes_the_bootstrap(runs):
    first, again, other = (compare_runs(runs["s0", "s1"], seed=seed) for seed in (0, 0, 1))

    assert first == again
    assert [row["r_at_1"] for row in first["rows"]] == [row["r_at_1"] for row in other["rows"]]
    assert first != other


def test_models_and_scopes_that_a_run_lacks_are_logged_and_left_out(new_runs, caplog):
    names = ("colour_histogram", "specialists", "unified")
    new_runs.add("less", new_runs.dataset, 4, names=names)
    with caplog.at_level(logging.INFO, logger="absl"):
        record = compare_runs(new_runs["s0", "less"])

    assert list(by_key(record)) == [
        ("specialists", "within"), ("unified", "within"), ("unified", "merged"),
    ]  # fmt: skip
    assert [one["minus"] for one in record["comparisons"]] == ["specialists"]
    s0, less = new_runs["s0", "less"]
    assert f"colour_histogram is not compared within: missing in {s0}\n" in caplog.text
    assert f"combined is not compared within: missing in {less}\n" in caplog.text


def test_grouped_specialists_equal_to_the_specialists_are_left_out(new_runs):
    names = ("specialists", "grouped_specialists", "unified")
    run_dirs = [new_runs.add(f"g{seed}", new_runs.dataset, seed, names=names) for seed in (5, 6)]

    record = compare_runs(run_dirs)
    assert {model for model, _ in by_key(record)} == {"specialists", "unified"}
    assert [(one["model"], one["minus"]) for one in record["comparisons"]] == [
        ("unified", "specialists")
    ]

    # If one run found larger groups, the other's single verticals are the groups that it found.
    summary = run_dirs[0] / "evaluation/summary.json"
    changed = read_json(summary)
    for row in changed["rows"]:
        row["models_to_deploy"] = 1
        row["models_to_deploy"] += row["model"] == "specialists"
    summary.write_text(json.dumps(changed))
    assert {model for model, _ in by_key(compare_runs(run_dirs))} == set(names)


def test_the_dataset_may_be_named_once_for_all_runs(new_runs):
    expected = compare_runs(new_runs["s0", "s1"])
    for run in new_runs["s0", "s1"]:
        (run / "prepared").unlink()

    assert compare_runs(new_runs["s0", "s1"], new_runs.dataset.directory) == expected
    with pytest.raises(UserError, match=r"s0/prepared: directory does not exist"):
        compare_runs(new_runs["s0", "s1"])


def test_another_dataset_than_was_evaluated_is_refused(new_runs):
    prepared = new_runs.directory / "s1/prepared"
    prepared.unlink()
    prepared.symlink_to(new_runs.newer.directory.resolve())
    message = r"s1/evaluation: was made from a dataset with fingerprint .*s1/prepared .*--prepared"

    with pytest.raises(UserError, match=message):
        compare_runs(new_runs["s0", "s1"])
    with pytest.raises(UserError, match=r"s0/evaluation: .* but that of .*data-new/prepared is"):
        compare_runs(new_runs["s0", "s1"], new_runs.newer.directory)


def test_runs_that_cannot_be_compared_are_refused(new_runs):
    s0, s1 = new_runs["s0", "s1"]
    val = new_runs.add("val", new_runs.dataset, 7, split="val")
    other = new_runs.add("other", new_runs.dataset, 8, names=("mine",))
    copy = shutil.copytree(s0, s0.with_name("copy"), symlinks=True)
    partial = s0.with_name("begun") / "evaluation.partial"
    partial.mkdir(parents=True)
    link = s0.with_name("link")
    link.symlink_to(s0)

    for run_dirs, message in (
        ([], "expected at least 2 runs, got 0"),
        ([s0], "expected at least 2 runs, got 1"),
        ([s0, s1, s0], "s0 is given twice"),
        ([s0, link], "link is given twice"),
        ([s0, copy], "copy was made from the same flags and inputs as .*s0;"),
        ([s0, val], r"different splits \(.*s0 on test, .*val on val\)"),
        ([s0, other], "have none of combined, specialists, unified, mine in common"),
        ([s0, s0.with_name("none")], "none is not a directory"),
        ([s0, partial.parent], "begun/evaluation: not finished"),
        ([s0, s0 / "prepared"], "evaluation: stage does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            compare_runs(run_dirs)


def made_with(run_dir, **flags):
    return run_stage(
        StageSpec(run_dir / "combined", flags=flags, inputs={}, work=lambda directory: {})
    )


def test_runs_that_were_trained_differently_are_refused(new_runs):
    trainings = {"a": {"steps": 9, "seed": 0}, "b": {"steps": 9, "seed": 1}, "c": {"steps": 8}}
    for name, flags in trainings.items():
        stage = made_with(new_runs.directory / name, **flags)
        new_runs.add(name, new_runs.dataset, 1, behind=[stage])

    compare_runs(new_runs["a", "b"])
    message = r"stage combined was made with steps=9 in .*/a, but 8 in .*/c; expected"
    with pytest.raises(UserError, match=message):
        compare_runs(new_runs["a", "b", "c"])


def test_datasets_with_matches_in_different_verticals_are_refused(new_runs):
    # A hat has one image in each split: its query has no match.
    items = [("i0", "bags", 2), ("i1", "tops", 2), ("hat", "hats", 1)]
    silent = make_dataset(new_runs.directory / "silent", items, seed=2)
    items[0] = ("i0", "bags", 1)
    fewer = make_dataset(new_runs.directory / "fewer", items, seed=3)
    new_runs.add("silent-run", silent, 1)
    new_runs.add("fewer-run", fewer, 1)

    rows = compare_runs(new_runs["s0", "silent-run"])["rows"]
    for row in rows:
        assert row["r_at_1"] == pytest.approx(np.mean(row["r_at_1_runs"]))
    message = r"s0 has .* a match in the verticals bags, tops, but .*fewer-run in tops; expected"
    with pytest.raises(UserError, match=message):
        compare_runs(new_runs["s0", "silent-run", "fewer-run"])


def test_runs_on_two_datasets_of_the_same_images_are_refused(new_runs):
    # Prepared twice, with one item added and some removed.
    items = [(f"i{number}", ("bags", "tops")[number % 2], 2) for number in range(12)]
    again = make_dataset(new_runs.directory / "again", [*items[:9], ("j", "tops", 2)])
    assert again.fingerprint != new_runs.dataset.fingerprint
    new_runs.add("again-run", again, 4)
    message = (
        r"s0 and .*again-run were evaluated on different datasets that share images of split "
        r"test, such as 0_test_0\.png; .* on one prepared dataset and name it with --prepared"
    )

    with pytest.raises(UserError, match=message):
        compare_runs(new_runs["s0", "s1", "new", "again-run"])
    compare_runs(new_runs["new", "again-run"])


def test_embeddings_of_other_images_are_refused(new_runs):
    s0, new = (run / "evaluation/embeddings/unified.parquet" for run in new_runs["s0", "new"])
    shutil.copy(new, s0)

    with pytest.raises(
        UserError,
        match=r"s0/evaluation/.*unified.parquet: expected the 24 records of split test, got 20",
    ):
        compare_runs(new_runs["s0", "s1"])
    s0.unlink()
    with pytest.raises(UserError, match=r"unified.parquet: no such file"):
        compare_runs(new_runs["s0", "s1"])


def test_a_new_comparison_replaces_the_old_one(runs, tmp_path):
    write_comparison(compare_runs(runs["s0", "new"]), tmp_path / "made/here")
    record = compare_runs(runs["s0", "s1"])
    write_comparison(record, tmp_path / "made/here")

    assert read_json(tmp_path / "made/here/comparison.json") == record
    assert (tmp_path / "made/here/comparison.txt").read_text("utf-8") == render_runs(record)
    assert len(list((tmp_path / "made/here").iterdir())) == 2
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match=r"--output=.*file: could not write to it"):
        write_comparison(record, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.slow
def test_the_binary_prints_the_tables_and_the_paths_of_its_output(runs, tmp_path, activated):
    s0, s1 = runs["s0", "s1"]
    output = tmp_path / "seeds"
    done = subprocess.run(
        [sys.executable, "tools/compare_runs.py", f"--runs={s0},{s1}", f"--output={output}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == (
        f"{render_runs(compare_runs([s0, s1]))}\n"
        f"Comparison:  {output / 'comparison.json'}\n"
        f"Tables:      {output / 'comparison.txt'}\n"
        "Next:        python tools/export_saved_model.py --run_dir=<the run to serve>\n"
    )
