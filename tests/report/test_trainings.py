from __future__ import annotations

import dataclasses

import pytest
from report_runs import STEPS, is_drawn, make_run, write_scalars

from apparel_embed.report import trainings
from apparel_embed.report.trainings import read_scalars, teachers_section, trainings_section
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import run_stage

pytestmark = pytest.mark.slow


def test_all_logged_scalars_are_read_even_if_there_are_many(tmp_path):
    write_scalars(tmp_path, "loss", {step: step / 4 for step in range(1, 801)})
    found = read_scalars(tmp_path, ("loss", "other"))

    assert found == {"loss": {step: step / 4 for step in range(1, 801)}, "other": {}}


def test_the_later_value_of_a_step_logged_twice_counts(tmp_path):
    write_scalars(tmp_path / "a", "loss", {10: 4.0, 20: 3.0})
    write_scalars(tmp_path / "b", "loss", {20: 2.5, 30: 2.0})
    for number, part in enumerate("ab"):
        (file,) = (tmp_path / part).iterdir()
        # As written by two calls, a second apart.
        file.rename(tmp_path / f"events.out.tfevents.{1700000000 + number}.host.1.0.v2")
    found = read_scalars(tmp_path, ("loss",))["loss"]

    assert list(found.items()) == [(10, 4.0), (20, 2.5), (30, 2.0)]


def test_a_truncated_event_file_is_read_up_to_its_end(tmp_path):
    write_scalars(tmp_path, "loss", {step: step / 4 for step in range(1, 101)})
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    found = read_scalars(tmp_path, ("loss",))["loss"]

    assert 30 < len(found) < 70
    assert found == {step: step / 4 for step in found}


def test_a_missing_directory_has_no_scalars(tmp_path):
    assert read_scalars(tmp_path / "none", ("loss",)) == {"loss": {}}


def test_every_training_is_in_the_table_with_its_result(nasty_run):
    table, *_ = trainings_section(nasty_run.inputs()).parts
    (hats,) = [line for line in table.rows if line[0] == "hats"]

    names = [*nasty_run.dataset.verticals, "combined", "unified"]
    assert [line[0] for line in table.rows] == names
    assert hats == ("hats", "12", str(STEPS), "10", "0", "0.250", "0.0500")
    # All val queries that have an answer, as many as in test.
    assert table.rows[-1][4] == "33"


def test_figures_of_losses_and_validation_are_deterministic(nasty_run):
    first, second = (trainings_section(nasty_run.inputs()).parts[1:] for _ in range(2))

    assert [image.name for image in first] == ["losses", "validation"]
    assert [image.png for image in first] == [image.png for image in second]
    assert all(is_drawn(image.png) for image in first)
    assert "12 training images" in first[0].caption
    assert "33 validation queries" in first[1].caption


def test_only_the_last_trainings_are_drawn_and_the_others_counted(nasty_run, monkeypatch):
    monkeypatch.setattr(trainings, "_MOST_DRAWN", 2)
    _, *images = trainings_section(nasty_run.inputs()).parts
    assert all(image.caption.endswith("Not drawn: the first 4 trainings.") for image in images)
    assert len(trainings_section(nasty_run.inputs()).parts[0].rows) == 6


def test_a_run_without_event_files_says_so_instead_of_drawing_curves(nasty_run, tmp_path):
    run = make_run(tmp_path / "run", nasty_run.dataset, events=False)
    section = trainings_section(run.inputs())

    assert [part.kind for part in section.parts] == ["table"]
    assert "no event files" in section.caption


CHOICES = [
    {
        "vertical": "bags",
        "chosen": "joint",
        "queries": 120,
        "items": 40,
        "candidates": [
            {"name": "joint", "r_at_1": 0.75, "difference": 0.0, "low": -0.05},
            {"name": "specialist-bags", "r_at_1": 0.7004, "difference": -0.05, "low": -0.1},
        ],
    },
    {"vertical": "hats", "chosen": "joint", "queries": 0, "items": 0, "candidates": []},
]


def with_targets(inputs, directory, choices):
    stage = run_stage(
        StageSpec(directory / "targets", flags={}, inputs={}, work=lambda _: {"choices": choices})
    )
    return dataclasses.replace(inputs, stages={"targets": stage})


def with_student(inputs, directory, **result):
    """Returns the inputs with another student."""
    stage = run_stage(StageSpec(directory / "student", flags={}, inputs={}, work=lambda _: result))
    changed = [
        dataclasses.replace(one, stage=stage) if one.model == "unified" else one
        for one in inputs.trainings
    ]
    assert [one.model for one in changed].count("unified") == 1
    return dataclasses.replace(inputs, trainings=changed)


def test_the_section_is_empty_without_targets_and_agreement(nasty_run):
    section = teachers_section(nasty_run.inputs())
    assert (section.name, section.parts) == ("teachers", ())


def test_every_vertical_has_a_row_with_its_teacher_and_the_evidence(nasty_run, tmp_path):
    (table,) = teachers_section(with_targets(nasty_run.inputs(), tmp_path, CHOICES)).parts

    assert table.header[:2] == ("vertical", "taught by")
    assert table.rows == (
        ("bags", "joint", "120", "40", "joint 0.750, specialist-bags 0.700"),
        ("hats", "joint", "0", "0", "no query has an answer"),
    )
    assert "90 % confidence" in table.caption


def test_the_students_agreement_and_diagnosis_are_shown(nasty_run, tmp_path):
    agreement = {"train": 0.9876, "augmented": 0.9, "held_out": None}
    inputs = with_student(
        nasty_run.inputs(), tmp_path, agreement=agreement, diagnosis="too few steps: an example"
    )
    section = teachers_section(inputs)
    (table,) = section.parts

    assert table.rows == (("0.988", "0.900", "-"),)
    assert section.caption.endswith(" The student: too few steps: an example.")
