"""References by name, on stages whose models are never opened."""

import dataclasses

import numpy as np
import pytest

from apparel_embed import student_stages
from apparel_embed.errors import UserError
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs import run_stage
from apparel_embed.stage_record import Stage
from apparel_embed.student_stages import REFERENCES, find_reference
from apparel_embed.training.references import FrozenBackbone
from apparel_embed.training.targets import TargetsConfig

MODEL = ModelConfig(image_size=32, embedding_dim=8)


class Dataset:
    """So many training pictures of each vertical."""

    def __init__(self, **counts):
        self._counts = counts

    def select(self, *, split, verticals):
        assert split == "train"
        return range(sum(self._counts[vertical] for vertical in verticals))


def specialist(run_dir, *verticals):
    flags = {"verticals": list(verticals), "model": dataclasses.asdict(MODEL)}
    return Stage(run_dir / "+".join(verticals), "fingerprint", flags, {}, 0.0)


def find(name, run_dir, specialists=(), dataset=None):
    return find_reference(name, run_dir, dataset, specialists, init_weights="none", seed=3)


def test_first_is_the_specialist_of_the_vertical_with_most_pictures_not_of_the_largest_group(
    tmp_path,
):
    some = [
        specialist(tmp_path, *names) for names in (("bag", "dress", "hat"), ("top",), ("sock",))
    ]
    dataset = Dataset(bag=4, dress=4, hat=4, top=5, sock=1)
    assert find("first", tmp_path, some, dataset) is some[1]
    # Of equals the first.
    assert find("first", tmp_path, some, Dataset(bag=1, dress=5, hat=1, top=5, sock=5)) is some[0]


def test_frozen_is_the_backbone_of_the_specialists(tmp_path):
    found = find("frozen", tmp_path, [specialist(tmp_path, "bag")])
    assert found == FrozenBackbone(MODEL, "none", 3)


def test_none_is_no_reference(tmp_path):
    assert find("none", tmp_path) is None


@pytest.mark.parametrize(
    ("name", "stage"), [("combined", "combined"), ("student", "student-unaligned")]
)
def test_models_are_found_by_their_stage_and_missed_by_name(tmp_path, name, stage):
    with pytest.raises(UserError, match=rf"--align_to={name} needs another stage: .*{stage}"):
        find(name, tmp_path)

    made = run_stage(tmp_path / stage, flags={}, inputs={}, work=lambda directory: {})
    assert find(name, tmp_path).fingerprint == made.fingerprint


def test_flags_tell_of_unlabelled_pictures_only_where_there_are_some(
    tiny_prepared, tiny_unlabelled, tmp_path, monkeypatch
):
    asked = []

    def compute(dataset, teachers, *, reference, config):
        asked.append(config.unlabelled)
        report = [{"unlabelled": 3 * config.unlabelled}, {"unlabelled": config.unlabelled}]
        return np.arange(5), np.eye(5, 8, dtype=np.float32), report

    monkeypatch.setattr(student_stages, "compute_targets", compute)

    def stage(dataset, name, used):
        config = TargetsConfig(unlabelled=used)
        return student_stages.targets_stage(tmp_path, dataset, [], None, config, name)

    used, left_out = (stage(tiny_unlabelled, f"some-{use}", use) for use in (True, False))
    assert used.flags == {**left_out.flags, "unlabelled": True}
    assert left_out.flags["unlabelled"] is False
    assert used.fingerprint != left_out.fingerprint
    assert (used.result["unlabelled"], left_out.result["unlabelled"]) == (4, 0)
    assert used.result["pictures"] == 5
    # What an earlier release made is found finished.
    none = stage(tiny_prepared, "none", True)
    assert none.flags == {"align_to": "none", "views": 1, "separation": 0.0}
    assert stage(tiny_prepared, "none", False).skipped
    assert asked == [True, False, True]
    with pytest.raises(UserError, match="was made with unlabelled=True, now it is False"):
        stage(tiny_unlabelled, "some-True", False)


def test_an_unknown_reference_says_what_is_allowed(tmp_path):
    with pytest.raises(UserError, match="--align_to=teacher: allowed are combined, none, frozen"):
        find("teacher", tmp_path)
    assert set(REFERENCES) == {"combined", "none", "frozen", "first", "student"}
