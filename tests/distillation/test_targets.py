"""Targets from teachers on a tiny dataset whose items differ by hue."""

import dataclasses

import numpy as np
import pytest
from tiny_teachers import MODEL, VERTICALS, both, targets_of

from apparel_embed.distillation.spaces import (
    FrozenBackbone,
    joint_embeddings,
    reference_embeddings,
)
from apparel_embed.distillation.targets import (
    JOINT,
    OLD_SHARE,
    TargetsConfig,
    Teacher,
    compute_targets,
)
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import (
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.execution import reset_and_seed

pytestmark = pytest.mark.slow


def embedded(directory, dataset, records):
    return Embedder(load_embedding_model(directory)[0]).records(dataset, records)


def test_every_training_image_gets_the_embedding_of_its_verticals_teacher(tiny_prepared, teachers):
    found = targets_of(tiny_prepared, both(teachers))

    np.testing.assert_array_equal(found.records, tiny_prepared.select(split="train"))
    verticals = tiny_prepared.column("vertical")[found.records]
    for seed, name in enumerate(VERTICALS):
        reset_and_seed(seed)
        expected = Embedder(build_embedding_model(MODEL)).records(
            tiny_prepared, found.records[verticals == name]
        )
        np.testing.assert_allclose(found.embeddings[verticals == name], expected, atol=1e-6)
    assert [(entry["name"], entry["images"]) for entry in found.teachers] == [
        ("bags", 16),
        ("dresses", 16),
    ]
    # The only teacher of a vertical is chosen.
    assert [(one.vertical, one.chosen) for one in found.choices] == [
        ("bags", "bags"),
        ("dresses", "dresses"),
    ]
    assert all(
        [one.name for one in choice.candidates] == [choice.chosen] for choice in found.choices
    )


@pytest.mark.parametrize("several", [False, True])
def test_images_of_split_val_get_separate_embeddings_from_the_same_teachers(
    tiny_prepared, teachers, several
):
    known = both(teachers)
    if several:
        known.append(Teacher("combined", VERTICALS, teachers / "reference"))
    found = targets_of(tiny_prepared, known)

    np.testing.assert_array_equal(found.held_out_records, tiny_prepared.select(split="val"))
    assert not set(found.held_out_records) & set(found.records)
    assert found.held_out.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.held_out, axis=1), 1, atol=1e-5)
    if not several:
        verticals = tiny_prepared.column("vertical")[found.held_out_records]
        for name in VERTICALS:
            mine = verticals == name
            expected = embedded(teachers / name, tiny_prepared, found.held_out_records[mine])
            np.testing.assert_allclose(found.held_out[mine], expected, atol=1e-6)


def test_unlabelled_images_also_get_the_embedding_of_their_verticals_teacher(
    tiny_prepared, tiny_unlabelled, teachers
):
    found = targets_of(tiny_unlabelled, both(teachers))

    unlabelled = tiny_unlabelled.select(split="unlabelled")
    train = tiny_unlabelled.select(split="train")
    assert (len(unlabelled), len(train)) == (8, 24)
    np.testing.assert_array_equal(found.records, np.sort(np.append(train, unlabelled)))
    verticals = tiny_unlabelled.column("vertical")[unlabelled]
    assert sorted(verticals) == ["bags"] * 4 + ["dresses"] * 4
    mine = found.embeddings[np.isin(found.records, unlabelled)]
    for name in VERTICALS:
        expected = embedded(teachers / name, tiny_unlabelled, unlabelled[verticals == name])
        np.testing.assert_allclose(mine[verticals == name], expected, atol=1e-6)
    for entry in found.teachers:
        assert (entry["images"], entry["unlabelled"]) == (16, 4)
    # Targets are the same as for labelled images.
    kept = targets_of(tiny_prepared, both(teachers))
    np.testing.assert_array_equal(kept.records, found.records)
    np.testing.assert_allclose(kept.embeddings, found.embeddings, atol=1e-6)
    assert [entry["unlabelled"] for entry in kept.teachers] == [0, 0]


def test_unlabelled_images_are_left_out_on_request(tiny_unlabelled, teachers):
    found = targets_of(tiny_unlabelled, both(teachers), unlabelled=False)
    np.testing.assert_array_equal(found.records, tiny_unlabelled.select(split="train"))
    everything = targets_of(tiny_unlabelled, both(teachers))
    theirs = everything.embeddings[np.isin(everything.records, found.records)]
    np.testing.assert_allclose(found.embeddings, theirs, atol=1e-6)
    for entry in found.teachers:
        assert (entry["images"], entry["unlabelled"]) == (12, 0)


def test_rotations_are_fitted_on_labelled_and_unlabelled_images_together(
    tiny_prepared, tiny_unlabelled, teachers
):
    reference = teachers / "reference"
    as_labelled = targets_of(tiny_prepared, both(teachers), reference)
    found = targets_of(tiny_unlabelled, both(teachers), reference)
    np.testing.assert_allclose(found.embeddings, as_labelled.embeddings, atol=1e-4)
    fewer = targets_of(tiny_unlabelled, both(teachers), reference, unlabelled=False)
    same = found.embeddings[np.isin(found.records, fewer.records)]
    assert np.abs(fewer.embeddings - same).max() > 1e-3
    for entry in found.teachers:
        assert entry["cosine_after"] > entry["cosine_before"]


@pytest.mark.parametrize("kind", ["model", "frozen"])
def test_alignment_rotates_each_teacher_towards_the_reference_and_preserves_its_distances(
    tiny_prepared, teachers, kind
):
    reference = {"model": teachers / "reference", "frozen": FrozenBackbone(MODEL)}[kind]
    raw = targets_of(tiny_prepared, both(teachers))
    aligned = targets_of(tiny_prepared, both(teachers), reference)

    for records, ours, before in (
        (raw.records, aligned.embeddings, raw.embeddings),
        # The rotation is fitted on the training images.
        (raw.held_out_records, aligned.held_out, raw.held_out),
    ):
        verticals = tiny_prepared.column("vertical")[records]
        for name in VERTICALS:
            mine = verticals == name
            np.testing.assert_allclose(
                ours[mine] @ ours[mine].T, before[mine] @ before[mine].T, atol=1e-4
            )
    for entry in aligned.teachers:
        assert entry["cosine_after"] >= entry["cosine_before"] - 1e-5
        assert entry["cosine_after"] > {"model": 0.9, "frozen": 0.1}[kind]


def test_held_out_images_do_not_affect_rotations(tiny_prepared, teachers, monkeypatch):
    from apparel_embed.distillation import targets

    seen = []
    rotation = targets.alignment_rotation

    def spy(embeddings, reference):
        seen.append(len(embeddings))
        return rotation(embeddings, reference)

    monkeypatch.setattr(targets, "alignment_rotation", spy)
    combined = Teacher("combined", VERTICALS, teachers / "bags")
    targets_of(tiny_prepared, [*both(teachers), combined], teachers / "reference")
    # One rotation for each teacher and for the joint, without the 16 images of split val.
    assert seen == [16, 16, 32, 32]


def test_the_frozen_backbone_is_one_unit_length_space_determined_by_its_seed(
    tiny_prepared,
):
    bags, dresses = (tiny_prepared.select(split="train", verticals=[v]) for v in VERTICALS)

    def embed(seed, *groups, dim=8):
        backbone, records = FrozenBackbone(MODEL, seed=seed), np.concatenate(groups)
        found = reference_embeddings(backbone, tiny_prepared, records, dim)
        return np.split(found, [16]) if len(groups) > 1 else [found]

    first, second = embed(0, bags, dresses)
    assert first.dtype == np.float32
    assert first.shape == (16, 8)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    again = embed(0, dresses, bags)
    np.testing.assert_allclose(again[1] @ again[0].T, first @ second.T, atol=1e-3)
    other = embed(1, bags, dresses)
    assert np.abs(other[0] @ other[1].T - first @ second.T).max() > 0.05
    # There may be more dimensions than the backbone has features.
    assert embed(0, bags, dim=1000)[0].shape == (16, 1000)


class Narrowed:
    """The dataset with fewer records in some splits, or with an item of its own per image."""

    def __init__(self, dataset, kept=None, lonely=False):
        self._dataset, self._kept, self._lonely = dataset, kept or {}, lonely

    def select(self, *, split, **conditions):
        return self._dataset.select(split=split, **conditions)[: self._kept.get(split)]

    def column(self, name):
        if self._lonely and name == "item_id":
            return np.arange(len(self._dataset)).astype(str).astype(object)
        return self._dataset.column(name)

    def __getattr__(self, name):
        return getattr(self._dataset, name)


def test_a_single_image_has_a_zero_reference_but_still_a_target(tiny_prepared, teachers):
    lone = Narrowed(tiny_prepared, {"train": 1, "val": 0})
    some = both(teachers)[:1]
    raw = targets_of(lone, some)
    aligned = targets_of(lone, some, FrozenBackbone(MODEL))

    assert aligned.embeddings.shape == raw.embeddings.shape == (1, 8)
    np.testing.assert_allclose(np.linalg.norm(aligned.embeddings, axis=1), 1, atol=1e-5)
    assert aligned.teachers[0]["cosine_after"] == 0
    assert aligned.held_out.shape == (0, 8)


def both_and_combined(teachers):
    return [*both(teachers), Teacher("combined", VERTICALS, teachers / "reference")]


def test_a_vertical_with_several_teachers_is_taught_by_their_joint(tiny_prepared, teachers):
    found = targets_of(tiny_prepared, both_and_combined(teachers))

    for choice in found.choices:
        assert choice.chosen == JOINT
        assert [one.name for one in choice.candidates] == [JOINT, choice.vertical, "combined"]
        assert (choice.queries, choice.items) == (8, 2)
        assert [one.r_at_1 for one in choice.candidates] == [1, 1, 1]
    everything = np.append(found.records, found.held_out_records)
    verticals = tiny_prepared.column("vertical")[everything]
    combined = embedded(teachers / "reference", tiny_prepared, everything)
    own = np.where(
        (verticals == "bags")[:, np.newaxis],
        *(embedded(teachers / name, tiny_prepared, everything) for name in VERTICALS),
    )
    is_learnt = np.arange(len(everything)) < len(found.records)
    expected = joint_embeddings([combined, own], is_learnt, dim=8)
    np.testing.assert_allclose(
        found.embeddings @ found.embeddings.T, (expected @ expected.T)[:32, :32], atol=1e-4
    )
    np.testing.assert_allclose(
        found.held_out @ found.held_out.T, (expected @ expected.T)[32:, 32:], atol=1e-4
    )
    assert [entry["images"] for entry in found.teachers] == [16, 16, 32]


def test_teachers_of_the_same_verticals_are_joined_and_are_one_candidate(tiny_prepared, teachers):
    bags = Teacher("bags", ("bags",), teachers / "bags")
    others = [Teacher("dresses", ("dresses",), teachers / "dresses")]
    twice = [bags, *others, dataclasses.replace(bags, name="bags again")]
    found = targets_of(tiny_prepared, twice)

    chosen = {choice.vertical: choice.chosen for choice in found.choices}
    assert chosen == {"bags": "bags x 2", "dresses": "dresses"}
    once = targets_of(tiny_prepared, [bags, *others])
    # The same teacher twice only rotates the space.
    for vertical in VERTICALS:
        mine = tiny_prepared.column("vertical")[found.records] == vertical
        np.testing.assert_allclose(
            found.embeddings[mine] @ found.embeddings[mine].T,
            once.embeddings[mine] @ once.embeddings[mine].T,
            atol=1e-4,
        )


def test_a_joint_is_rotated_onto_the_reference(tiny_prepared, teachers):
    some, reference = both_and_combined(teachers), teachers / "reference"
    raw = targets_of(tiny_prepared, some)
    aligned = targets_of(tiny_prepared, some, reference)
    expected = embedded(reference, tiny_prepared, raw.records)

    def cosine(targets):
        return np.mean(np.sum(targets.embeddings * expected, axis=1))

    assert {choice.chosen for choice in aligned.choices} == {JOINT}
    assert cosine(aligned) > 0.9
    assert cosine(aligned) > cosine(raw)


def test_verticals_of_only_some_teachers_get_targets_in_one_space(tiny_prepared, teachers):
    some = [
        Teacher("both", VERTICALS, teachers / "reference"),
        Teacher("bags", ("bags",), teachers / "bags"),
    ]
    found = targets_of(tiny_prepared, some)

    candidates = {
        choice.vertical: [one.name for one in choice.candidates] for choice in found.choices
    }
    assert candidates == {"bags": [JOINT, "bags", "both"], "dresses": [JOINT, "both"]}
    np.testing.assert_array_equal(found.records, tiny_prepared.select(split="train"))
    np.testing.assert_allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-5)

    only_bags = targets_of(tiny_prepared, some[1:])
    np.testing.assert_array_equal(
        only_bags.records, tiny_prepared.select(split="train", verticals=["bags"])
    )
    assert [choice.vertical for choice in only_bags.choices] == ["bags"]


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A teacher that gives every image the same embedding."""
    reset_and_seed(0)
    model = build_embedding_model(MODEL)
    kernel, bias = model.get_layer("projection").weights
    kernel.assign(0 * kernel)
    bias.assign(np.eye(8)[0])
    directory = tmp_path_factory.mktemp("blind") / "model"
    save_embedding_model(directory, model, MODEL)
    return directory


def blind_teachers(blind):
    return [Teacher(name, VERTICALS, blind) for name in ("one", "other")]


def test_the_joint_teaches_if_split_val_has_no_answered_query(tiny_prepared, blind):
    lonely = Narrowed(tiny_prepared, lonely=True)
    nothing = Narrowed(tiny_prepared, {"val": 0})
    for dataset, held_out in ((lonely, 16), (nothing, 0)):
        found = targets_of(dataset, blind_teachers(blind))

        for choice in found.choices:
            assert (choice.chosen, choice.queries, choice.candidates) == ("one x 2", 0, ())
        cosines = found.embeddings @ found.embeddings.T
        np.testing.assert_allclose(cosines, 1, atol=1e-5)
        assert found.held_out.shape == (held_out, 8)


def test_the_same_seed_gives_the_same_targets(tiny_prepared, teachers):
    first, second = (targets_of(tiny_prepared, both_and_combined(teachers)) for _ in range(2))
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    assert first.choices == second.choices


def test_an_earlier_student_is_also_a_teacher_of_its_verticals(tiny_prepared, teachers):
    reference = teachers / "reference"
    alone = targets_of(tiny_prepared, both(teachers), reference)
    mixed = compute_targets(
        tiny_prepared,
        both(teachers),
        reference=reference,
        config=TargetsConfig(dim=MODEL.embedding_dim),
        old_verticals=("bags", "shoes"),
    )

    is_bag = tiny_prepared.column("vertical")[alone.records] == "bags"
    np.testing.assert_array_equal(mixed.embeddings[~is_bag], alone.embeddings[~is_bag])
    earlier = embedded(reference, tiny_prepared, alone.records)
    expected = (1 - OLD_SHARE) * alone.embeddings + OLD_SHARE * earlier
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mixed.embeddings[is_bag], expected[is_bag], atol=1e-6)
