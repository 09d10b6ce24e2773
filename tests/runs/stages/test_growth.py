"""Use of an earlier run, with artificial stages and targets."""

import dataclasses

import numpy as np
import pytest

from apparel_embed.common.errors import UserError
from apparel_embed.data.growing import replayed_records
from apparel_embed.distillation.targets import Targets
from apparel_embed.evaluation.embeddings import write_embeddings
from apparel_embed.models.embedding import ModelConfig
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.growth import (
    Growth,
    OldImages,
    check_growth,
    find_growth,
    is_grown,
    known_verticals,
)
from apparel_embed.runs.stages.targets import HELD_OUT_FILE, TARGETS_FILE
from apparel_embed.store.record import Stage, StageSpec, open_stage
from apparel_embed.store.runs import run_stage

FILES = TARGETS_FILE, HELD_OUT_FILE
DIM = 8


def codes(records):
    """Returns embeddings that identify their records."""
    return np.repeat(np.asarray(records, np.float32)[:, None], DIM, axis=1)


@pytest.fixture
def earlier(tiny_prepared, tmp_path):
    """A student and its targets; every other training image has a target."""

    def work(directory):
        for file, split in zip(FILES, ("train", "val")):
            records = tiny_prepared.select(split=split)[:: 2 if split == "train" else 1]
            write_embeddings(directory / file, records, codes(records))
        return {}

    run = Run(tmp_path / "old", tiny_prepared)
    targets = run.make("targets", work, flags={}, inputs={})
    flags = {"model": dataclasses.asdict(ModelConfig(embedding_dim=DIM))}
    inputs = {"targets": targets.fingerprint}
    result = {"verticals": ["bags", "dresses"]}
    return open_stage(run.make("student", lambda _: result, flags=flags, inputs=inputs).directory)


@pytest.fixture
def embedded(monkeypatch):
    """Replaces the earlier student's embeddings with the negated record numbers."""

    def embed(model, dataset, records, dim):
        return -codes(records)

    monkeypatch.setattr("apparel_embed.runs.stages.growth.reference_embeddings", embed)


def new_targets(first):
    """Returns targets of three new images to learn and two held out, from record `first` on."""
    records = np.arange(first, first + 5)
    constant = np.full((5, DIM), 0.5, np.float32)
    return Targets(records[:3], constant[:3], records[3:], constant[3:], (), ())


def all_targets(earlier, dataset, share=1.0):
    replayed = replayed_records(dataset, share, seed=0)
    old = OldImages.of(replayed, earlier, dataset)
    # The records of this grown dataset are those of the earlier one, in order.
    grown = Columns(dataset, replayed)
    return replayed, old, old.before(new_targets(len(replayed)), grown, FILES, unlabelled=True)


@dataclasses.dataclass
class Columns:
    dataset: object
    replayed: np.ndarray

    def column(self, name):
        return self.dataset.column(name)[self.replayed]


def test_reused_targets_belong_to_the_same_images(tiny_prepared, earlier, embedded):
    replayed, old, found = all_targets(earlier, tiny_prepared, share=0.5)
    splits = tiny_prepared.column("split")[replayed]

    assert old.flags == {"old_targets": "kept"}
    assert old.inputs == {"old_targets": old.targets.fingerprint}
    learnt, held_out = np.flatnonzero(splits == "train"), np.flatnonzero(splits == "val")
    np.testing.assert_array_equal(found.records[:-3], learnt)
    np.testing.assert_array_equal(found.held_out_records[:-2], held_out)
    np.testing.assert_array_equal(found.held_out[:-2], codes(replayed[held_out]))
    has_one = np.isin(replayed[learnt], tiny_prepared.select(split="train")[::2])
    assert 0 < has_one.sum() < len(learnt)
    expected = np.where(has_one[:, None], codes(replayed[learnt]), -codes(learnt))
    np.testing.assert_array_equal(found.embeddings[:-3], expected)
    assert (found.embeddings[-3:] == 0.5).all()
    assert (np.diff(found.records) > 0).all()


@pytest.mark.parametrize("change", ["removed", "redone", "of another dataset"])
def test_the_earlier_student_embeds_images_if_its_targets_are_missing(
    tiny_prepared, tiny_unlabelled, earlier, embedded, change
):
    dataset = tiny_prepared
    if change == "removed":
        (earlier.directory.parent / "targets").rename(earlier.directory.parent / "away")
    elif change == "redone":
        earlier = dataclasses.replace(earlier, inputs={"targets": "another"})
    else:
        dataset = tiny_unlabelled
    _, old, found = all_targets(earlier, dataset)

    assert (old.flags, old.inputs) == ({"old_targets": "embedded"}, {})
    np.testing.assert_array_equal(found.embeddings[:-3], -codes(found.records[:-3]))
    np.testing.assert_array_equal(found.held_out[:-2], -codes(found.held_out_records[:-2]))


def test_the_verticals_of_a_student_come_from_its_result_or_its_dataset(tiny_prepared, earlier):
    assert known_verticals(earlier) == ("bags", "dresses")
    without_result = dataclasses.replace(
        earlier, result={}, directory=tiny_prepared.directory.parent / "student"
    )
    assert known_verticals(without_result) == ("bags", "dresses")


def student(directory, dim, *verticals):
    flags = {"model": {"embedding_dim": dim}}
    return Stage(directory / "student", "x", flags, {"verticals": list(verticals)}, 0.0)


@pytest.mark.parametrize(
    ("dim", "verticals", "message"),
    [
        (4, ("bags",), "its embeddings have 4 numbers, those of .*new/student 8; expected"),
        (8, ("shoes", "hats"), "was trained on shoes, hats, but .* has bags, dresses; expected"),
    ],
)
def test_a_student_that_cannot_be_compared_is_refused(
    tiny_prepared, tmp_path, dim, verticals, message
):
    old, new = student(tmp_path / "old", dim, *verticals), student(tmp_path / "new", 8, "bags")
    with pytest.raises(UserError, match=f"^--gallery_model={old.directory}: {message}"):
        check_growth(Growth(old), tiny_prepared, new)


def test_a_comparison_without_a_student_is_an_error(tiny_prepared, earlier):
    with pytest.raises(UserError, match="requires a student of this run"):
        check_growth(Growth(earlier), tiny_prepared, None)


def test_students_that_are_not_named_are_those_compared_before_if_they_exist(
    tiny_prepared, earlier, tmp_path
):
    run = Run(tmp_path / "run", tiny_prepared)
    assert find_growth(run, None, None) is None
    with pytest.raises(UserError, match="--growth_compare_to requires --gallery_model"):
        find_growth(run, None, earlier)
    assert find_growth(run, earlier, earlier) == Growth(earlier, earlier)

    inputs = {"old_student": earlier.fingerprint}
    result = {"old_student": str(earlier.directory)}
    run_stage(StageSpec(run.directory / "targets", {}, inputs, work=lambda _: result))
    assert find_growth(run, None, None) == Growth(earlier)
    assert not is_grown(run)

    compared = Growth(earlier, earlier)
    result = {"compared": compared.directories}
    run_stage(StageSpec(run.directory / "evaluation", {}, compared.inputs, work=lambda _: result))
    assert find_growth(run, None, None) == compared
    earlier.directory.rename(tmp_path / "away")
    assert find_growth(run, None, None) is None
