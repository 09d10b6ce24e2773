"""The models that trainings start from, with stages whose models are never opened."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepare import PrepareConfig
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.config import GrowthConfig, PipelineConfig
from apparel_embed.runs.pipeline import run_pipeline
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.runs.stages.start import architecture_difference
from apparel_embed.runs.stages.student import student_stage
from apparel_embed.runs.stages.targets import HELD_OUT_FILE, TARGETS_FILE
from apparel_embed.store.names import COMBINED, COMBINED_START, OLD_STUDENT, STUDENT
from apparel_embed.store.record import StageSpec, open_stage
from apparel_embed.store.runs import run_stage
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

MODEL = ModelConfig(image_size=32, embedding_dim=8)


def made(run_dir, name, model=MODEL):
    flags = {
        "model": dataclasses.asdict(model), "unlabelled": False, "align_to": COMBINED_START,
    }  # fmt: skip
    return run_stage(
        StageSpec(run_dir / name, flags=flags, inputs={"x": name}, work=lambda directory: {})
    )


@pytest.fixture
def previous(tmp_path):
    """A run with a specialist for bags, but none for dresses."""
    for name in ("specialist-bags", COMBINED, STUDENT):
        made(tmp_path / "noisy", name)
    return tmp_path / "noisy"


@pytest.fixture
def started(monkeypatch):
    """The models that trainings start from, by the name of the trained model; none is trained."""
    found = {}

    def train_specialist(dataset, verticals, config, directory, what, start=None, views=None):
        found[what] = start
        return {}

    def train_student(dataset, taught, held_out, config, directory, start, rotate_start, **_):
        found["unified"], found["rotated"] = start, rotate_start
        return {}

    monkeypatch.setattr("apparel_embed.runs.stages.specialist.train_specialist", train_specialist)
    monkeypatch.setattr("apparel_embed.runs.stages.student.train_student", train_student)
    return found


def specialist_config(init_from, **changes):
    model = dataclasses.replace(MODEL, **changes)
    return SpecialistConfig(model, OptimizationConfig(steps=1), init_from=init_from)


def student_config(init_from, **changes):
    model = dataclasses.replace(MODEL, **changes)
    return StudentConfig(model, OptimizationConfig(steps=1), init_from=init_from)


def record_of(run_dir, name):
    return json.loads((run_dir / name / "stage.json").read_text())


def test_specialists_start_from_that_of_the_same_verticals_or_else_from_the_combined_model(
    tiny_prepared, previous, started, tmp_path, caplog
):
    run_dir, config = tmp_path / "clean", specialist_config(previous)
    expected = {
        "specialist-bags": "specialist-bags",
        "specialist-dresses": COMBINED,
        COMBINED_START: COMBINED,
        COMBINED: COMBINED,
    }
    with caplog.at_level("INFO", logger="absl"):
        specialist_stage(Run(run_dir, tiny_prepared), ["bags"], config)
        specialist_stage(Run(run_dir, tiny_prepared), ["dresses"], config)
        for name in (COMBINED_START, COMBINED):
            # With different steps, as one would otherwise be a copy of the other.
            other = config.for_steps(2 if name == COMBINED else 3, verticals=2)
            specialist_stage(Run(run_dir, tiny_prepared), ["bags", "dresses"], other, name)

    for name, source in expected.items():
        assert started[name] == previous / source / "model"
        record, fingerprint = record_of(run_dir, name), record_of(previous, source)["fingerprint"]
        assert record["inputs"]["init_from"] == fingerprint
        assert record["result"] == {"started_from": str(previous / source)}
        assert record["flags"]["start"] == "init_from"
        assert f"{name}: starts from {previous / source} ({fingerprint[:12]})" in caplog.text
    # The path does not matter, but the models do.
    moved = shutil.copytree(previous, tmp_path / "moved")
    assert specialist_stage(Run(run_dir, tiny_prepared), ["bags"], specialist_config(moved)).skipped
    shutil.rmtree(moved / "specialist-bags")
    with pytest.raises(UserError, match="was made from another init_from"):
        specialist_stage(Run(run_dir, tiny_prepared), ["bags"], specialist_config(moved))
    with pytest.raises(UserError, match=r"was made with start='init_from', now it is 'none'"):
        specialist_stage(Run(run_dir, tiny_prepared), ["bags"], specialist_config(None))


def test_a_group_of_all_verticals_is_trained_only_once(tiny_prepared, previous, started, tmp_path):
    run_dir, config, both = tmp_path / "clean", specialist_config(previous), ["bags", "dresses"]
    specialist_stage(Run(run_dir, tiny_prepared), both, config, COMBINED)
    specialist_stage(Run(run_dir, tiny_prepared), both, config)
    assert list(started) == [COMBINED]


def test_a_model_of_the_same_run_takes_precedence_over_an_earlier_run(
    tiny_prepared, previous, started, tmp_path
):
    own = made(tmp_path, COMBINED_START)
    for number, init_from in enumerate((None, previous)):
        config = specialist_config(init_from)
        run_dir = tmp_path / str(number)
        stage = specialist_stage(Run(run_dir, tiny_prepared), ["bags"], config, start=own)
        assert started.pop("specialist-bags") == own.directory / "model"
        assert stage.flags["start"] == COMBINED_START
        assert stage.inputs[COMBINED_START] == own.fingerprint
        assert "init_from" not in stage.inputs
        assert stage.result == {}
    with pytest.raises(UserError, match="was made with start='combined-start', now it is 'none'"):
        specialist_stage(Run(tmp_path / "0", tiny_prepared), ["bags"], specialist_config(None))


def test_stages_without_an_earlier_run_do_not_record_one(tiny_prepared, started, tmp_path):
    stage = specialist_stage(Run(tmp_path, tiny_prepared), ["bags"], specialist_config(None))
    assert set(stage.inputs) == {"prepared", "init_weights"}
    assert not [name for name in stage.flags if "init" in name]
    assert stage.flags["start"] == "none"
    assert (stage.result, started) == ({}, {"specialist-bags": None})


def targets_of(run_dir):
    stage = made(run_dir, "targets")
    for name in (TARGETS_FILE, HELD_OUT_FILE):
        write_embeddings(stage.directory / name, np.arange(3), np.eye(3, 8, dtype=np.float32))
    return stage


def test_a_student_starts_from_the_earlier_student_unless_a_model_of_its_run_is_given(
    tiny_prepared, previous, started, tmp_path
):
    run_dir = tmp_path / "clean"
    targets, own = targets_of(run_dir), made(run_dir, COMBINED_START)
    stage = student_stage(Run(run_dir, tiny_prepared), targets, student_config(previous))
    assert started["unified"] == previous / STUDENT / "model"
    assert stage.flags["start"] == "init_from"
    # Its embedding space is that of the earlier run; the targets' is that of this run.
    assert stage.flags["rotate_start"] is started["rotated"] is True
    assert stage.inputs["init_from"] == record_of(previous, STUDENT)["fingerprint"]
    assert stage.result == {"started_from": str(previous / STUDENT)}

    config = student_config(previous)
    stage = student_stage(Run(run_dir, tiny_prepared), targets, config, own, name="from-combined")
    assert started["unified"] == own.directory / "model"
    assert stage.flags["start"] == COMBINED_START
    assert "rotate_start" not in stage.flags
    assert started["rotated"] is False
    assert "init_from" not in stage.inputs
    assert stage.result == {}


def test_a_start_is_rotated_unless_the_targets_are_in_its_embedding_space(
    tiny_prepared, previous, started, tmp_path
):
    run_dir = tmp_path / "clean"
    targets, student = targets_of(run_dir), record_of(previous, STUDENT)["fingerprint"]
    for reference, is_rotated in ((student, False), ("another student", True)):
        aligned = dataclasses.replace(
            targets,
            flags={**targets.flags, "align_to": OLD_STUDENT},
            inputs={OLD_STUDENT: reference},
        )
        name = f"rotated-{is_rotated}"
        stage = student_stage(
            Run(run_dir, tiny_prepared), aligned, student_config(previous), name=name
        )
        assert stage.flags.get("rotate_start", False) is started["rotated"] is is_rotated


@pytest.mark.parametrize("dim", [6, 10])
def test_a_student_with_another_embedding_length_than_its_start_is_refused(
    tiny_prepared, previous, started, tmp_path, dim
):
    config = student_config(previous, embedding_dim=dim)
    message = f"its student has embedding_dim 8, but --embedding_dim is {dim}; expected equal"
    with pytest.raises(UserError, match=message):
        student_stage(
            Run(tmp_path / "clean", tiny_prepared), targets_of(tmp_path / "clean"), config
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet18"}, "its .* has backbone small_cnn, but --backbone is resnet18"),
        ({"pooling": "gem"}, "its .* has pooling average, but --pooling is gem"),
        ({"embedding_dim": 16}, "its .* has embedding_dim 8, but --embedding_dim is 16"),
    ],
)
def test_another_architecture_is_refused_with_both_values(
    tiny_prepared, previous, started, tmp_path, changes, message
):
    config = specialist_config(previous, **changes)
    for verticals, name in ((["bags"], None), (["dresses"], None), (["bags", "dresses"], COMBINED)):
        with pytest.raises(UserError, match=f"--init_from={previous}: {message}; expected equal"):
            specialist_stage(Run(tmp_path / "clean", tiny_prepared), verticals, config, name)
    assert not (tmp_path / "clean").exists()
    stage = open_stage(previous / STUDENT)
    assert architecture_difference(stage, MODEL) == ""
    assert architecture_difference(stage, config.model) != ""


def test_image_size_and_batch_norm_momentum_may_differ(tiny_prepared, previous, started, tmp_path):
    config = specialist_config(previous, image_size=48, batch_norm_momentum=0.99)
    specialist_stage(Run(tmp_path / "clean", tiny_prepared), ["bags"], config)
    assert started["specialist-bags"] == previous / "specialist-bags/model"


def pipeline_config(run_dir, init_from, **changes):
    return PipelineConfig(
        run_dir=run_dir,
        synthetic=None,
        # Never read, as errors in the earlier run are reported first.
        prepare=PrepareConfig("nowhere.csv", run_dir / "prepared"),
        specialist=specialist_config(init_from, **changes),
        student=student_config(init_from, **changes),
        combined_steps=1,
    )


def test_the_pipeline_reports_problems_with_an_earlier_run_first(previous, tmp_path):
    clean = tmp_path / "clean"
    nowhere, empty = tmp_path / "nowhere", tmp_path / "empty"
    empty.mkdir()
    unfinished = shutil.copytree(previous, tmp_path / "unfinished")
    (unfinished / STUDENT).rename(unfinished / "student.partial")
    apart = shutil.copytree(previous, tmp_path / "apart")
    shutil.rmtree(apart / STUDENT)
    made(apart, STUDENT, dataclasses.replace(MODEL, embedding_dim=10))
    for config, message in (
        (pipeline_config(clean, nowhere), f"{nowhere}: no such directory; expected a finished run"),
        (
            pipeline_config(previous, previous),
            f"{previous}: expected an earlier run, got --run_dir",
        ),
        (pipeline_config(clean, empty), f"{empty}: not a finished run: {empty}/combined: stage"),
        (
            pipeline_config(clean, unfinished),
            f"{unfinished}: not a finished run: {unfinished}/student: not finished",
        ),
        (
            pipeline_config(clean, previous, embedding_dim=4),
            f"{previous}: its combined has embedding_dim 8, but --embedding_dim is 4",
        ),
        (
            pipeline_config(clean, apart),
            f"{apart}: its student has embedding_dim 10, but --embedding_dim is 8",
        ),
    ):
        with pytest.raises(UserError, match=f"^--init_from={message}") as refused:
            run_pipeline(config)
        assert "\n" not in str(refused.value)
    for config in (
        pipeline_config(clean, previous),
        pipeline_config(clean, previous, image_size=64),
    ):
        with pytest.raises(UserError, match=r"^nowhere\.csv: no such manifest"):
            run_pipeline(config)
    assert not Path("nowhere.csv").exists()


@pytest.mark.parametrize("flag", ["grow_from", "align_to"])
def test_the_pipeline_reports_problems_with_a_run_that_it_is_aligned_to(previous, tmp_path, flag):
    clean, nowhere, empty = (tmp_path / name for name in ("clean", "nowhere", "empty"))
    empty.mkdir()
    unfinished = shutil.copytree(previous, tmp_path / "unfinished")
    (unfinished / STUDENT).rename(unfinished / "student.partial")

    def config(old, run_dir=clean, dim=8, **growth):
        base = pipeline_config(run_dir, None, embedding_dim=dim)
        if flag == "grow_from":
            return dataclasses.replace(base, growth=GrowthConfig(old, **growth))
        return dataclasses.replace(base, align_to=str(old), growth=GrowthConfig(**growth))

    for wrong, message in (
        (config(nowhere), f"{nowhere}: no such directory; expected a finished run"),
        (config(empty), f"{empty}: not a finished run: {empty}/student: stage does not exist"),
        (config(unfinished), f"{unfinished}: not a finished run: {unfinished}/student: not fini"),
        (config(previous, run_dir=previous), f"{previous}: expected an earlier run, got --run_dir"),
        (
            config(previous, dim=4),
            f"{previous}: its embeddings have 8 numbers, but --embedding_dim is 4; expected equal",
        ),
    ):
        with pytest.raises(UserError, match=f"^--{flag}={message}"):
            run_pipeline(wrong)
    with pytest.raises(UserError, match=f"{empty}/student: stage does not exist"):
        run_pipeline(config(previous, growth_compare_to=empty))
    assert not clean.exists()


def test_a_grown_run_has_no_other_start(previous, tmp_path):
    config = pipeline_config(tmp_path / "clean", previous)
    config = dataclasses.replace(config, growth=GrowthConfig(previous))
    with pytest.raises(UserError, match="remove --init_from and --align_to"):
        run_pipeline(config)
    alone = dataclasses.replace(
        pipeline_config(tmp_path / "clean", None), growth=GrowthConfig(growth_compare_to=previous)
    )
    with pytest.raises(UserError, match="--growth_compare_to requires --grow_from or --align_to"):
        run_pipeline(alone)
