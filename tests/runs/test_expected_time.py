import dataclasses

import pytest
from tiny_run import config_of

from apparel_embed.models.config import DetectorConfig
from apparel_embed.runs.expected_time import (
    detector_step_seconds,
    expected_time,
    student_step_seconds,
    triplet_step_seconds,
)
from apparel_embed.store.record import Workload
from apparel_embed.training.config import DetectorTraining


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return config_of(tmp_path_factory.mktemp("time") / "run")


def test_without_work_nothing_is_measured(config):
    assert expected_time(Workload(), config.specialist, config.student, 10) == ""


def test_workloads_can_be_added():
    both = Workload(triplet_steps=2, views=5) + Workload(1, 3)
    assert both == Workload(triplet_steps=3, student_steps=3, views=5)


def test_a_step_of_each_kind_is_measured(config):
    assert 0 < triplet_step_seconds(config.specialist) < 60
    assert 0 < student_step_seconds(config.student) < 60
    tiny = DetectorTraining(DetectorConfig(image_size=64), batch_size=2)
    assert 0 < detector_step_seconds(tiny) < 60


def test_the_estimate_lists_steps_and_their_times(config, monkeypatch):
    module = "apparel_embed.runs.expected_time"
    monkeypatch.setattr(f"{module}.triplet_step_seconds", lambda _: 0.5)
    monkeypatch.setattr(f"{module}.student_step_seconds", lambda _: 0.25)
    work = Workload(triplet_steps=7200, student_steps=400, views=160)
    text = expected_time(work, config.specialist, config.student, 10)
    # 3,600 s of triplets, 100 s of the student, and 160 views at 8 images per step: 10 s.
    assert text.startswith(
        "Training will take about 1:01:50 on this machine: 7,200 triplet steps at 0.500 s each, "
        "160 views at 0.0625 s each, 400 student steps at 0.250 s each"
    )


def test_the_estimate_includes_a_detector_if_there_is_one(config, monkeypatch):
    monkeypatch.setattr("apparel_embed.runs.expected_time.detector_step_seconds", lambda _: 2.0)
    work = Workload(detector_steps=30)
    text = expected_time(work, config.specialist, config.student, 10, DetectorTraining())
    assert text.startswith("Training will take about 0:01:00 on this machine: 30 detector steps at")
    assert expected_time(work, config.specialist, config.student, 10) == ""


def test_the_number_of_images_decides_whether_the_backbone_is_frozen(config, monkeypatch):
    seen = []
    module = "apparel_embed.runs.expected_time"
    monkeypatch.setattr(f"{module}.triplet_step_seconds", lambda one: seen.append(one) or 1.0)
    undecided = dataclasses.replace(config.specialist.optimization, train_backbone=None)
    specialist = dataclasses.replace(config.specialist, optimization=undecided)
    for images in (10, 10_000):
        expected_time(Workload(1), specialist, config.student, images)
    assert [one.optimization.train_backbone for one in seen] == [False, True]
