import contextlib
import dataclasses
import io
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from report_runs import make_dataset
from tensorboard_plugins import hparams_table

from apparel_embed.common.errors import UserError
from apparel_embed.distillation.targets import Targets
from apparel_embed.evaluation.models import Embedded
from apparel_embed.grouping.strategies import format_groups
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.report.sweep import CURVE_FILE, SWEEP_FILE
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.runs.stages.sweep import SweepConfig, partitions_of, sweep_stage
from apparel_embed.store.names import COMBINED
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

STAGES = "apparel_embed.runs.stages"
MODEL = ModelConfig(image_size=32, embedding_dim=4)
LOOP = LoopConfig(validate_every=2)
TRAINING = SpecialistConfig(
    MODEL, OptimizationConfig(steps=2), items_per_batch=4, images_per_item=2, loop=LOOP
)
STUDENT = StudentConfig(MODEL, OptimizationConfig(steps=4), batch_size=8, loop=LOOP)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 20), st.integers(1, 25), st.integers(1, 4), st.integers(0, 5))
def test_partitions_contain_every_vertical_once_in_groups_of_about_the_size(n, size, count, seed):
    verticals = [f"v{number}" for number in range(n)]
    found = partitions_of(verticals, size, count, seed)

    assert len(set(found)) == len(found) <= count
    assert len(found) == 1 if size == 1 or size >= n else len(found) >= min(count, 3)
    for groups in found:
        assert sorted(name for group in groups for name in group) == sorted(verticals)
        lengths = [len(group) for group in groups]
        assert max(lengths) <= size
        assert max(lengths) - min(lengths) <= 1
    assert found == partitions_of(verticals, size, count, seed)


@pytest.mark.parametrize(
    ("n", "size", "total"),
    # Two pairs; two pairs and one alone; two triples; a triple and two pairs.
    [(4, 2, 3), (5, 2, 15), (6, 4, 10), (7, 3, 105)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_partitions_are_distinct_and_all_are_found(n, size, total, seed):
    verticals = [f"v{number}" for number in range(n)]
    found = partitions_of(verticals, size, 1000, seed)

    assert len(set(found)) == len(found) == total
    for count in range(1, 4):
        assert partitions_of(verticals, size, count, seed) == found[:count]


def test_the_first_partition_of_a_seed_is_the_same_as_in_earlier_releases():
    verticals = list("abcdefgh")

    for size, firsts in (
        (4, ["a+c+f+g,b+d+e+h", "a+c+e+h,b+d+f+g"]),
        (3, ["a+b+d,c+f+g,e+h", "a+c+d,b+g,e+f+h"]),
    ):
        found = [partitions_of(verticals, size, 2, seed)[0] for seed in (0, 1)]
        assert [format_groups(groups) for groups in found] == firsts


def test_partitions_differ_by_number_and_seed():
    verticals = list("abcdefgh")
    first, second = partitions_of(verticals, 4, 2, 0)

    assert first != second
    assert partitions_of(verticals, 4, 1, 1) != [first]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": ()}, r"sizes: expected one or more distinct values, got \(\)"),
        ({"sizes": (2, 2)}, r"sizes: expected one or more distinct values, got \(2, 2\)"),
        ({"sizes": (0, 2)}, r"sizes \(0, 2\)"),
        ({"seeds": (-1,)}, r"seeds \(-1,\)"),
        ({"partitions": 0}, "partitions 0"),
        ({"steps": "many"}, "steps: expected per_vertical or per_model, got 'many'"),
    ],
)
def test_errors_for_settings_out_of_range_name_the_valid_values(changes, message):
    with pytest.raises(UserError, match=message):
        SweepConfig(**changes)


@pytest.fixture(scope="module")
def swept(tiny_prepared, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("swept")
    config = SweepConfig(sizes=(1, 8), partitions=3, seeds=(0, 1))
    return run_dir, sweep_stage(Run(run_dir, tiny_prepared), config, TRAINING, STUDENT)


@pytest.mark.slow
def test_every_size_has_triplet_models_and_sizes_above_one_a_student(swept):
    _, stage = swept
    record = json.loads((stage.directory / SWEEP_FILE).read_text())

    found = [(row["group_size"], row["model"], len(row["repeats"])) for row in record["rows"]]
    # Two verticals have one partition of size 1 and one of size 2, for each of two seeds.
    assert found == [(1, "triplet", 2), (2, "triplet", 2), (2, "unified", 2)]
    for row in record["rows"]:
        assert row["queries"] == 16
        assert row["r_at_1"] == pytest.approx(np.mean(row["repeats"]))
        assert row["r_at_1_low"] <= row["r_at_1"] <= row["r_at_1_high"]


@pytest.mark.slow
def test_a_plan_lists_every_model_or_the_finished_sweep(swept, tiny_prepared, tmp_path):
    run_dir, _ = swept
    config = SweepConfig(sizes=(1, 8), partitions=3, seeds=(0, 1))
    plan, done = StagePlan(tmp_path / "run"), StagePlan(run_dir)
    for directory, one in ((tmp_path / "run", plan), (run_dir, done)):
        sweep_stage(Run(directory, tiny_prepared, one.access), config, TRAINING, STUDENT)
    seeds = [f"sweep-models/seed{seed}/" for seed in (0, 1)]
    single = [f"specialist-{vertical}" for vertical in tiny_prepared.verticals]
    together = "+".join(tiny_prepared.verticals)
    unified = [f"unified-{together}/{name}" for name in ("targets", "student")]
    names = [*single, f"specialist-{together}", *unified]
    models = [seed + name for seed in seeds for name in names]
    assert {stage.name for stage in plan.stages.values()} == {"sweep", *models}
    assert {stage.state for stage in plan.stages.values()} == {"to do"}
    assert not any(tmp_path.iterdir())
    assert [(stage.name, stage.state) for stage in done.stages.values()] == [("sweep", "finished")]


@pytest.mark.slow
def test_models_of_groups_have_the_steps_of_their_verticals_and_their_seed(swept):
    run_dir, _ = swept
    for seed in (0, 1):
        models = run_dir / f"sweep-models/seed{seed}"
        for name, steps in (
            ("specialist-bags", 2),
            ("specialist-bags+dresses", 4),
            ("unified-bags+dresses/student", 4),
        ):
            flags = json.loads((models / name / "stage.json").read_text())["flags"]
            assert flags["optimization"]["steps"] == steps
            assert flags["optimization"]["seed"] == seed


@pytest.mark.slow
def test_a_model_that_the_run_has_trained_is_not_trained_again(tiny_prepared, tmp_path):
    own = specialist_stage(Run(tmp_path, tiny_prepared), ["bags"], TRAINING)
    both = specialist_stage(
        Run(tmp_path, tiny_prepared), tiny_prepared.verticals, TRAINING.for_verticals(2), COMBINED
    )
    config = SweepConfig(sizes=(1, 2), seeds=(0, 1), unified=False, split="val")
    sweep_stage(Run(tmp_path, tiny_prepared), config, TRAINING, STUDENT)

    for stage, name in ((own, "specialist-bags"), (both, "specialist-bags+dresses")):
        trained = json.loads((stage.directory / "stage.json").read_text())["finished"]
        for seed in (0, 1):
            made = tmp_path / f"sweep-models/seed{seed}" / name / "stage.json"
            copied = json.loads(made.read_text())["finished"] == trained
            assert copied == (seed == 0)


@pytest.mark.slow
def test_the_curve_is_not_blank(swept):
    _, stage = swept
    image = Image.open(io.BytesIO((stage.directory / CURVE_FILE).read_bytes()))

    assert image.size[0] > 500
    assert len(image.convert("RGB").getcolors(1 << 20)) > 50


@pytest.fixture
def untrained(monkeypatch):
    """The names of the models that would be trained; trainings and embeddings are replaced."""
    trained = []

    def train_specialist(dataset, verticals, config, directory, what, start=None, views=None):
        trained.append(what)
        return {}

    def compute_targets(dataset, teachers, *, reference, config, old_verticals):
        assert not old_verticals
        assert config.dim == STUDENT.model.embedding_dim
        some = np.arange(3), np.eye(3, 4, dtype=np.float32)
        return Targets(*some, *some, (), ())

    def train_student(dataset, taught, held_out, config, directory, start, **_):
        trained.append(directory.parent.name)
        return {}

    def embed(dataset, images, directories):
        embeddings = np.random.default_rng(0).normal(size=[len(images), 4])
        return Embedded(embeddings.astype(np.float32), 0, len(directories), False)

    monkeypatch.setattr(f"{STAGES}.specialist.train_specialist", train_specialist)
    monkeypatch.setattr(f"{STAGES}.targets.compute_targets", compute_targets)
    monkeypatch.setattr(f"{STAGES}.student.train_student", train_student)
    monkeypatch.setattr(f"{STAGES}.sweep.embed_by_specialists", embed)
    return trained


def swept_once(run_dir, dataset, config, training, finished, monkeypatch):
    """Runs a sweep to the end, or interrupts it before the curve is drawn."""

    def interrupted(record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
        if not finished:
            patch.setattr(f"{STAGES}.sweep.draw_curve", interrupted)
            stack.enter_context(pytest.raises(KeyboardInterrupt))
        sweep_stage(Run(run_dir, dataset), config, training, STUDENT)


@pytest.fixture(scope="module")
def of_four(tmp_path_factory):
    """A dataset of 4 verticals with 2 items each."""
    items = [(f"{name}{number}", name, 2) for name in "abcd" for number in range(2)]
    return make_dataset(tmp_path_factory.mktemp("four") / "data", items)


def test_rows_have_the_actual_group_size_and_sizes_with_equally_many_groups_are_run_once(
    of_four, tmp_path, untrained, caplog
):
    # Groups of at most 3 of 4 verticals are two pairs.
    config = SweepConfig(sizes=(3, 2, 4, 9), partitions=1, unified=False)
    with caplog.at_level(logging.INFO):
        stage = sweep_stage(Run(tmp_path, of_four), config, TRAINING, STUDENT)

    rows = stage.result["rows"]
    assert [(row["size"], row["group_size"]) for row in rows] == [(2, 2.0), (4, 4.0)]
    assert len(untrained) == 3
    assert "size 3 splits 4 verticals into as many groups as size 2, which is used" in caplog.text
    assert "size 9 splits 4 verticals into as many groups as size 4" in caplog.text

    config = dataclasses.replace(config, sizes=(3,))
    (row,) = sweep_stage(Run(tmp_path / "other", of_four), config, TRAINING, STUDENT).result["rows"]
    assert (row["size"], row["group_size"]) == (3, 2.0)


def test_every_repeat_is_a_row_of_the_hparams_tab(of_four, tmp_path, untrained):
    config = SweepConfig(sizes=(2, 4), partitions=2, seeds=(5, 6))
    stage = sweep_stage(Run(tmp_path, of_four), config, TRAINING, STUDENT)

    lines = hparams_table(tmp_path)
    for row in stage.result["rows"]:
        expected = [
            (seed, format_groups(groups))
            for seed in (5, 6)
            for groups in partitions_of("abcd", row["size"], 2, seed)
        ]
        for number, (value, (seed, groups)) in enumerate(zip(row["repeats"], expected)):
            name = f"sweep/tensorboard/{row['model']}-size{row['size']}-{number:02d}"
            hparams, metrics = lines.pop(name)
            assert (hparams["seed"], hparams["verticals"]) == (seed, groups)
            assert hparams["group_size"] == row["group_size"]
            assert metrics == {"r_at_1": pytest.approx(value)}
    assert not lines


def test_a_split_without_a_query_with_a_match_is_refused_before_training(tmp_path, untrained):
    # An item with a single image has no match in the gallery.
    dataset = make_dataset(tmp_path / "data", [(f"item{name}", name, 1) for name in "ab"])
    run_dir = tmp_path / "run"

    with pytest.raises(UserError, match=r"data/prepared: split test has no query .*--split"):
        sweep_stage(Run(run_dir, dataset), SweepConfig(), TRAINING, STUDENT)
    assert untrained == []
    assert not run_dir.exists()


@pytest.mark.parametrize("used", [True, False])
def test_students_learn_from_unlabelled_images_by_default(
    tiny_unlabelled, tmp_path, untrained, used
):
    config = SweepConfig(sizes=(2,), unlabelled=used)
    stage = sweep_stage(Run(tmp_path, tiny_unlabelled), config, TRAINING, STUDENT)

    made = tmp_path / "sweep-models/seed0/unified-bags+dresses/targets/stage.json"
    assert json.loads(made.read_text())["flags"]["unlabelled"] is used
    assert stage.flags["unlabelled"] is used


def test_the_unlabelled_flag_has_no_effect_unless_a_student_can_learn_from_such_images(
    tiny_prepared, tiny_unlabelled, tmp_path, untrained
):
    for dataset, unified in ((tiny_prepared, True), (tiny_unlabelled, False)):
        run_dir = tmp_path / f"unified-{unified}"
        config = SweepConfig(sizes=(2,), unified=unified)
        stage = sweep_stage(Run(run_dir, dataset), config, TRAINING, STUDENT)
        assert stage.flags["unlabelled"] is False

        other = dataclasses.replace(config, unlabelled=False)
        assert sweep_stage(Run(run_dir, dataset), other, TRAINING, STUDENT).skipped


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({"split": "val"}, 0),
        ({"sizes": (4,)}, 0),
        ({"sizes": (2, 4)}, 2),
        ({"partitions": 2, "sizes": (1, 2, 4)}, 4),
        ({"seeds": (0, 1)}, 5),
    ],
)
def test_another_curve_with_the_same_training_settings_trains_only_missing_models(
    of_four, tmp_path, untrained, monkeypatch, finished, changes, trained
):
    config = SweepConfig(sizes=(1, 4), partitions=1, unified=False)
    swept_once(tmp_path, of_four, config, TRAINING, finished, monkeypatch)
    del untrained[:]
    other = dataclasses.replace(config, **changes)
    stage = sweep_stage(Run(tmp_path, of_four), other, TRAINING, STUDENT)

    assert len(untrained) == trained
    assert not stage.skipped
    assert stage.flags["sizes"] == list(other.sizes)
    assert sweep_stage(Run(tmp_path, of_four), other, TRAINING, STUDENT).skipped


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("changes", [{}, {"seeds": (1,)}, {"split": "val"}])
def test_a_curve_with_other_training_settings_is_refused_and_the_old_one_is_kept(
    of_four, tmp_path, untrained, monkeypatch, finished, changes
):
    config = SweepConfig(sizes=(4,), unified=False)
    swept_once(tmp_path, of_four, config, TRAINING, finished, monkeypatch)
    made = tmp_path / ("sweep" if finished else "sweep.partial") / "stage.json"
    before = made.read_bytes()
    del untrained[:]
    other = dataclasses.replace(config, **changes)

    for training, steps in (
        (dataclasses.replace(TRAINING, optimization=OptimizationConfig(steps=3)), other.steps),
        (TRAINING, "per_model"),
    ):
        with pytest.raises(UserError, match=r"was made with .*; remove that directory"):
            one = dataclasses.replace(other, steps=steps)
            sweep_stage(Run(tmp_path, of_four), one, training, STUDENT)
    assert untrained == []
    assert made.read_bytes() == before


@pytest.mark.parametrize(
    ("steps", "triplet", "unified"),
    [
        # Steps, frozen steps and steps between validations for two of four verticals.
        ("per_vertical", (20, 6, 4), (20, 15, 5)),
        ("per_model", (10, 3, 2), (40, 30, 10)),
    ],
)
def test_steps_of_models_are_proportional_to_their_verticals_or_constant(
    of_four, tmp_path, untrained, steps, triplet, unified
):
    training = dataclasses.replace(
        TRAINING, optimization=OptimizationConfig(steps=10, frozen_steps=3)
    )
    student = dataclasses.replace(
        STUDENT,
        optimization=OptimizationConfig(steps=40, frozen_steps=30),
        loop=LoopConfig(validate_every=10),
    )
    config = SweepConfig(sizes=(2,), partitions=1, steps=steps)
    sweep_stage(Run(tmp_path, of_four), config, training, student)

    (groups,) = partitions_of(of_four.verticals, 2, 1, 0)
    for group in map("+".join, groups):
        for name, expected in (
            (f"specialist-{group}", triplet),
            (f"unified-{group}/student", unified),
        ):
            made = tmp_path / "sweep-models/seed0" / name / "stage.json"
            flags = json.loads(made.read_text())["flags"]
            optimization = flags["optimization"]
            found = (optimization["steps"], optimization["frozen_steps"])
            assert (*found, flags["loop"]["validate_every"]) == expected
