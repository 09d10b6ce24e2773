"""References and targets, with stages whose models are never opened."""

import dataclasses

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.distillation.spaces import FrozenBackbone
from apparel_embed.distillation.targets import Targets, TargetsConfig, Teacher
from apparel_embed.distillation.teacher_choice import Candidate, Choice
from apparel_embed.evaluation.embeddings import read_embeddings
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.targets import (
    HELD_OUT_FILE,
    REFERENCES,
    TARGETS_FILE,
    find_reference,
    student_teachers,
    targets_stage,
)
from apparel_embed.store.record import Stage, StageSpec
from apparel_embed.store.runs import run_stage

MODEL = ModelConfig(image_size=32, embedding_dim=8)


def specialist(run_dir, *verticals):
    flags = {"verticals": list(verticals), "model": dataclasses.asdict(MODEL)}
    return Stage(run_dir / "+".join(verticals), "fingerprint", flags, {}, 0.0)


def find(name, run_dir, specialists=()):
    return find_reference(name, Run(run_dir, None), specialists, init_weights="none", seed=3)


def test_combined_models_of_an_earlier_call_with_more_seeds_do_not_teach(tmp_path):
    for name in ("combined-start", "combined-start-2"):
        run_stage(StageSpec(tmp_path / name, flags={}, inputs={}, work=lambda directory: {}))
    dataset = dataclasses.make_dataclass("Dataset", ["verticals"])(("bag",))

    for seeds, expected in ((1, ["combined-start"]), (2, ["combined-start", "combined-start-2"])):
        found = student_teachers(Run(tmp_path, dataset), [], seeds)
        assert [stage.name for stage in found] == expected


def test_frozen_means_the_backbone_of_the_specialists(tmp_path):
    found = find("frozen", tmp_path, [specialist(tmp_path, "bag")])
    assert found == FrozenBackbone(MODEL, "none", 3)


def test_none_means_no_reference(tmp_path):
    assert find("none", tmp_path) is None


def test_combined_means_the_model_that_specialists_start_from_which_must_exist(tmp_path):
    message = r"--align_to=combined requires the stage .*combined-start"
    with pytest.raises(UserError, match=message):
        find("combined", tmp_path)

    made = run_stage(
        StageSpec(tmp_path / "combined-start", flags={}, inputs={}, work=lambda directory: {})
    )
    # The combined model for comparison is not the reference.
    run_stage(
        StageSpec(tmp_path / "combined", flags={"x": 1}, inputs={}, work=lambda directory: {})
    )
    assert find("combined", tmp_path).fingerprint == made.fingerprint


class FakeTargets:
    """Replaces `compute_targets`: records its arguments and returns targets of 5 images."""

    def __init__(self):
        self.configs, self.teachers, self.references = [], [], []

    def __call__(self, dataset, teachers, *, reference, config, old_verticals=()):
        self.old_verticals = old_verticals
        self.configs.append(config)
        self.teachers.append(teachers)
        self.references.append(reference)
        further = dataset.select(split="unlabelled")[: 3 * config.unlabelled]
        records = np.sort(np.concatenate([dataset.select(split="train")[:5], further]))
        return Targets(
            records,
            np.eye(len(records), 8, dtype=np.float32),
            dataset.select(split="val")[:2],
            np.eye(2, 8, dtype=np.float32),
            ({"name": "one", "verticals": ["bags"]},),
            (Choice("bags", "joint", 4, 2, (Candidate("joint", 0.5, 0.0, -0.5),)),),
        )


@pytest.fixture
def computed(monkeypatch):
    found = FakeTargets()
    monkeypatch.setattr("apparel_embed.runs.stages.targets.compute_targets", found)
    return found


def test_targets_record_their_teachers_and_are_stored_with_held_out_ones(
    tiny_prepared, tmp_path, computed
):
    def made(name, *verticals):
        flags = {"verticals": list(verticals), "model": dataclasses.asdict(MODEL)}
        return run_stage(
            StageSpec(tmp_path / name, flags=flags, inputs={}, work=lambda directory: {})
        )

    own, both = made("specialist-bags", "bags"), made("combined-start", "bags", "dresses")
    config = TargetsConfig(dim=8, seed=4)
    stage = targets_stage(Run(tmp_path, tiny_prepared), [own, both], both, config)

    assert computed.teachers == [
        [
            Teacher("specialist-bags", ("bags",), own.directory / "model"),
            Teacher("combined-start", ("bags", "dresses"), both.directory / "model"),
        ]
    ]
    assert computed.references == [both.directory / "model"]
    assert stage.flags == {
        "align_to": "combined-start",
        "dim": 8,
        "seed": 4,
        "unlabelled": False,
    }
    assert stage.inputs == {
        "prepared": tiny_prepared.fingerprint,
        "specialist-bags": own.fingerprint,
        "combined-start": both.fingerprint,
    }
    assert stage.result["teachers"] == [{"name": "one", "verticals": ["bags"]}]
    assert stage.result["choices"] == [
        {
            "vertical": "bags",
            "chosen": "joint",
            "queries": 4,
            "items": 2,
            "candidates": [{"name": "joint", "r_at_1": 0.5, "difference": 0.0, "low": -0.5}],
        }
    ]
    for file, split, count in ((TARGETS_FILE, "train", 5), (HELD_OUT_FILE, "val", 2)):
        records, embeddings = read_embeddings(stage.directory / file)
        np.testing.assert_array_equal(records, tiny_prepared.select(split=split)[:count])
        np.testing.assert_array_equal(embeddings, np.eye(count, 8))


def test_targets_record_the_student_they_are_aligned_to(tiny_prepared, tmp_path, computed):
    flags = {"model": dataclasses.asdict(MODEL)}
    spec = StageSpec(
        tmp_path / "old" / "student",
        flags=flags,
        inputs={},
        work=lambda directory: {"verticals": ["bags"]},
    )
    student = run_stage(spec)
    found = find(str(tmp_path / "old"), tmp_path / "run", [specialist(tmp_path, "bags")])
    stage = targets_stage(Run(tmp_path / "run", tiny_prepared), [], found, TargetsConfig(dim=8))

    assert computed.references == [student.directory / "model"]
    assert computed.old_verticals == ("bags",)
    assert stage.flags["align_to"] == "old_student"
    assert stage.inputs["old_student"] == student.fingerprint
    assert stage.result["old_student"] == str(student.directory)


def test_the_unlabelled_flag_has_no_effect_without_unlabelled_images(
    tiny_prepared, tiny_unlabelled, tmp_path, computed
):
    def stage(dataset, name, used):
        config = TargetsConfig(dim=8, unlabelled=used)
        return targets_stage(Run(tmp_path, dataset), [], None, config, name)

    used, left_out = (stage(tiny_unlabelled, f"some-{use}", use) for use in (True, False))
    assert used.flags == {**left_out.flags, "unlabelled": True}
    assert left_out.flags["unlabelled"] is False
    assert used.fingerprint != left_out.fingerprint
    assert (used.result["unlabelled"], left_out.result["unlabelled"]) == (3, 0)
    assert (used.result["images"], left_out.result["images"]) == (8, 5)
    none = stage(tiny_prepared, "none", True)
    assert none.flags == {"align_to": "none", "dim": 8, "seed": 0, "unlabelled": False}
    assert stage(tiny_prepared, "none", False).skipped
    assert [config.unlabelled for config in computed.configs] == [True, False, True]
    with pytest.raises(UserError, match=r"was made with --\w+=True, now it is False"):
        stage(tiny_unlabelled, "some-True", False)


def test_the_error_for_an_unknown_reference_names_the_valid_ones(tmp_path):
    with pytest.raises(
        UserError, match="--align_to=teacher: expected one of combined, none, frozen"
    ):
        find("teacher", tmp_path)
    assert set(REFERENCES) == {"combined", "none", "frozen"}
