"""What the report says of the student's teachers, on stages that are made up."""

from __future__ import annotations

import dataclasses

from apparel_embed.report.teachers import teachers_section
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import run_stage

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
    """The inputs with another student."""
    stage = run_stage(StageSpec(directory / "student", flags={}, inputs={}, work=lambda _: result))
    trainings = [
        dataclasses.replace(one, stage=stage) if one.model == "unified" else one
        for one in inputs.trainings
    ]
    assert [one.model for one in trainings].count("unified") == 1
    return dataclasses.replace(inputs, trainings=trainings)


def test_a_run_without_targets_and_agreement_has_nothing_to_show(nasty_run):
    section = teachers_section(nasty_run.inputs())
    assert (section.name, section.parts) == ("teachers", ())


def test_every_vertical_has_a_line_of_its_teacher_and_the_evidence(nasty_run, tmp_path):
    (table,) = teachers_section(with_targets(nasty_run.inputs(), tmp_path, CHOICES)).parts

    assert table.header[:2] == ("vertical", "taught by")
    assert table.rows == (
        ("bags", "joint", "120", "40", "joint 0.750, specialist-bags 0.700"),
        ("hats", "joint", "0", "0", "no query has an answer"),
    )
    assert "90 % confidence" in table.caption


def test_the_students_agreement_and_diagnosis_are_told(nasty_run, tmp_path):
    agreement = {"train": 0.9876, "augmented": 0.9, "held_out": None}
    inputs = with_student(
        nasty_run.inputs(), tmp_path, agreement=agreement, diagnosis="too few steps: so it is"
    )
    section = teachers_section(inputs)
    (table,) = section.parts

    assert table.rows == (("0.988", "0.900", "-"),)
    assert section.caption.endswith(" The student: too few steps: so it is.")
