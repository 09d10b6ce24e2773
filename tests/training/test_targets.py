"""What specialists make of the pictures of a tiny dataset whose items differ by hue."""

import dataclasses

import numpy as np
import pytest
from tiny_teachers import MODEL, VERTICALS, both, write_model

from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import (
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.alignment import alignment_rotation
from apparel_embed.training.references import FrozenBackbone, reference_embeddings
from apparel_embed.training.strategy import start_afresh
from apparel_embed.training.targets import TargetsConfig, Teacher, compute_targets

pytestmark = pytest.mark.slow


def test_every_training_picture_gets_the_embedding_of_its_verticals_specialist(
    tiny_prepared, teachers
):
    records, targets, report = compute_targets(tiny_prepared, both(teachers), reference=None)

    np.testing.assert_array_equal(records, tiny_prepared.select(split="train"))
    verticals = tiny_prepared.column("vertical")[records]
    for seed, name in enumerate(("bags", "dresses")):
        start_afresh(seed)
        expected = Embedder(build_embedding_model(MODEL)).records(
            tiny_prepared, records[verticals == name]
        )
        np.testing.assert_allclose(targets[verticals == name], expected, atol=1e-6)
    assert [entry["pictures"] for entry in report] == [16, 16]


def test_unlabelled_pictures_get_the_embedding_of_their_verticals_specialist_too(
    tiny_prepared, tiny_unlabelled, teachers
):
    records, targets, report = compute_targets(tiny_unlabelled, both(teachers), reference=None)

    unlabelled = tiny_unlabelled.select(split="unlabelled")
    train = tiny_unlabelled.select(split="train")
    assert (len(unlabelled), len(train)) == (8, 24)
    np.testing.assert_array_equal(records, np.sort(np.append(train, unlabelled)))
    verticals = tiny_unlabelled.column("vertical")[unlabelled]
    assert sorted(verticals) == ["bags"] * 4 + ["dresses"] * 4
    mine = targets[np.isin(records, unlabelled)]
    for name in VERTICALS:
        model, _ = load_embedding_model(teachers / name)
        expected = Embedder(model).records(tiny_unlabelled, unlabelled[verticals == name])
        np.testing.assert_allclose(mine[verticals == name], expected, atol=1e-6)
    for entry in report:
        assert (entry["pictures"], entry["unlabelled"]) == (16, 4)
    # As if they had kept their labels.
    kept, as_labelled, report = compute_targets(tiny_prepared, both(teachers), reference=None)
    np.testing.assert_array_equal(kept, records)
    np.testing.assert_allclose(as_labelled, targets, atol=1e-6)
    assert [entry["unlabelled"] for entry in report] == [0, 0]


def test_unlabelled_pictures_are_left_out_if_asked_to(tiny_unlabelled, teachers):
    left_out = TargetsConfig(unlabelled=False)
    records, targets, report = compute_targets(
        tiny_unlabelled, both(teachers), reference=None, config=left_out
    )
    np.testing.assert_array_equal(records, tiny_unlabelled.select(split="train"))
    everything, theirs, _ = compute_targets(tiny_unlabelled, both(teachers), reference=None)
    np.testing.assert_allclose(targets, theirs[np.isin(everything, records)], atol=1e-6)
    for entry in report:
        assert (entry["pictures"], entry["unlabelled"]) == (12, 0)


def test_rotations_are_those_of_labelled_and_unlabelled_pictures_together(
    tiny_prepared, tiny_unlabelled, teachers
):
    reference = teachers / "reference"
    _, as_labelled, _ = compute_targets(tiny_prepared, both(teachers), reference=reference)
    records, targets, report = compute_targets(tiny_unlabelled, both(teachers), reference=reference)
    np.testing.assert_allclose(targets, as_labelled, atol=1e-4)
    train, fewer, _ = compute_targets(
        tiny_unlabelled,
        both(teachers),
        reference=reference,
        config=TargetsConfig(unlabelled=False),
    )
    assert np.abs(fewer - targets[np.isin(records, train)]).max() > 1e-3
    for entry in report:
        assert entry["cosine_after"] > entry["cosine_before"]


@pytest.mark.parametrize("kind", ["model", "frozen", "first"])
def test_alignment_turns_each_specialist_towards_the_reference_and_keeps_its_distances(
    tiny_prepared, teachers, kind
):
    reference = {
        "model": teachers / "reference",
        "frozen": FrozenBackbone(MODEL),
        "first": teachers / "bags",
    }[kind]
    records, raw, _ = compute_targets(tiny_prepared, both(teachers), reference=None)
    _, aligned, report = compute_targets(tiny_prepared, both(teachers), reference=reference)

    verticals = tiny_prepared.column("vertical")[records]
    for name in ("bags", "dresses"):
        mine = verticals == name
        np.testing.assert_allclose(
            aligned[mine] @ aligned[mine].T, raw[mine] @ raw[mine].T, atol=1e-4
        )
    for entry in report:
        assert entry["cosine_after"] >= entry["cosine_before"] - 1e-5
        assert entry["cosine_after"] > {"model": 0.9, "frozen": 0.1, "first": 0.9}[kind]
    if kind == "first":
        np.testing.assert_allclose(
            aligned[verticals == "bags"], raw[verticals == "bags"], atol=1e-4
        )


def test_rotations_can_be_worked_out_from_the_pictures_of_all_groups(tiny_prepared, teachers):
    config = TargetsConfig(align_on="all")
    records, targets, report = compute_targets(
        tiny_prepared, both(teachers), reference=teachers / "bags", config=config
    )

    verticals = tiny_prepared.column("vertical")[records]
    bags, dresses = (
        Embedder(load_embedding_model(teachers / name)[0]).records(tiny_prepared, records)
        for name in ("bags", "dresses")
    )
    expected = np.where(
        (verticals == "bags")[:, np.newaxis], bags, dresses @ alignment_rotation(dresses, bags)
    )
    np.testing.assert_allclose(targets, expected, atol=1e-4)
    own = verticals == "dresses"
    of_its_group = dresses[own] @ alignment_rotation(dresses[own], bags[own])
    assert np.abs(of_its_group - expected[own]).max() > 1e-3
    assert report[0]["cosine_after"] == pytest.approx(1, abs=1e-5)


def test_unknown_pictures_to_align_on_are_refused(tiny_prepared, teachers):
    with pytest.raises(UserError, match="--align_on=some: allowed are group, all"):
        compute_targets(
            tiny_prepared, both(teachers), reference=None, config=TargetsConfig(align_on="some")
        )


def test_the_frozen_backbone_is_one_unit_length_space_for_all_groups_made_from_its_seed(
    tiny_prepared,
):
    bags, dresses = (tiny_prepared.select(split="train", verticals=[v]) for v in VERTICALS)

    def embed(seed, *groups, dim=8):
        return reference_embeddings(FrozenBackbone(MODEL, seed=seed), tiny_prepared, groups, dim)

    first, second = embed(0, bags, dresses)
    assert first.dtype == np.float32
    assert first.shape == (16, 8)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    again = embed(0, dresses, bags)
    np.testing.assert_allclose(again[1] @ again[0].T, first @ second.T, atol=1e-3)
    other = embed(1, bags, dresses)
    assert np.abs(other[0] @ other[1].T - first @ second.T).max() > 0.05
    # More dimensions than the backbone has features.
    assert embed(0, bags, dim=1000)[0].shape == (16, 1000)


def test_a_lone_picture_has_a_zero_reference_and_a_target_all_the_same(tiny_prepared, teachers):
    lone = _FirstPictureOnly(tiny_prepared)
    some = [Teacher(("bags",), teachers / "bags")]
    _, raw, _ = compute_targets(lone, some, reference=None)
    _, aligned, report = compute_targets(lone, some, reference=FrozenBackbone(MODEL))

    assert aligned.shape == raw.shape == (1, 8)
    np.testing.assert_allclose(np.linalg.norm(aligned, axis=1), 1, atol=1e-5)
    assert report[0]["cosine_after"] == 0


class _FirstPictureOnly:
    """The dataset with only the first of the records that are asked for."""

    def __init__(self, dataset):
        self._dataset = dataset

    def select(self, **conditions):
        return self._dataset.select(**conditions)[:1]

    def __getattr__(self, name):
        return getattr(self._dataset, name)


@pytest.mark.parametrize("broken", ["bags", "reference"])
def test_embeddings_that_are_not_numbers_are_refused(tiny_prepared, teachers, tmp_path, broken):
    start_afresh(0)
    model = build_embedding_model(MODEL)
    kernel = model.get_layer("projection").kernel
    kernel.assign(np.nan * kernel)
    save_embedding_model(tmp_path / "broken", model, MODEL)
    places = {name: teachers / name for name in ("bags", "reference")}
    places[broken] = tmp_path / "broken"

    with pytest.raises(UserError, match=rf"{broken}: 16 of 16 embeddings are not finite"):
        compute_targets(
            tiny_prepared, [Teacher(("bags",), places["bags"])], reference=places["reference"]
        )


def test_a_vertical_with_two_specialists_is_refused(tiny_prepared, teachers):
    overlap = [Teacher(("bags",), teachers / "bags"), Teacher(("bags",), teachers / "dresses")]

    with pytest.raises(UserError, match="'bags' belongs to two specialists"):
        compute_targets(tiny_prepared, overlap, reference=None)


@pytest.mark.parametrize("as_reference", [True, False])
def test_embeddings_of_different_lengths_are_refused(
    tiny_prepared, teachers, tmp_path, as_reference
):
    write_model(tmp_path / "long", 0, dataclasses.replace(MODEL, embedding_dim=16))
    some = [Teacher(("bags",), teachers / "bags")]
    other = None
    if as_reference:
        other = tmp_path / "long"
    else:
        some.append(Teacher(("dresses",), tmp_path / "long"))

    with pytest.raises(UserError, match=r"differ in length .*8.*16"):
        compute_targets(tiny_prepared, some, reference=other)
