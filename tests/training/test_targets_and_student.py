"""From specialists to a student, on a tiny dataset whose items differ by hue."""

import dataclasses
import logging

import numpy as np
import pytest

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.alignment import alignment_rotation
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.optimization import OptimizationConfig
from apparel_embed.training.references import FrozenBackbone, reference_embeddings
from apparel_embed.training.specialist import SpecialistConfig, train_specialist
from apparel_embed.training.strategy import start_afresh
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.targets import TargetsConfig, Teacher, compute_targets
from apparel_embed.training.validation import make_validation

MODEL = ModelConfig(image_size=32, embedding_dim=8)
VERTICALS = ("bags", "dresses")
STILL = InputConfig(augment=AugmentConfig(flip=False, zoom=0.0, translation=0.0))


def write_model(directory, seed, config=MODEL):
    start_afresh(seed)
    model = build_embedding_model(config)
    save_embedding_model(directory, model, config)
    return model


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("teachers")
    for seed, name in enumerate(("bags", "dresses", "reference")):
        write_model(directory / name, seed)
    return directory


def both(teachers):
    return [Teacher((name,), teachers / name) for name in ("bags", "dresses")]


def student_config(steps, **changes):
    optimization = OptimizationConfig(steps=steps, learning_rate=5e-3)
    config = StudentConfig(
        MODEL, optimization, batch_size=16, input=STILL, loop=LoopConfig(validate_every=steps)
    )
    return dataclasses.replace(config, **changes)


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


def test_the_student_learns_unlabelled_pictures_and_specialists_see_none(
    tiny_unlabelled, teachers, tmp_path, monkeypatch
):
    seen = []

    def run(loop):
        seen.extend(loop._batches(0))
        # Validated as ever: split val answers all queries.
        assert loop._validate is not None
        return {}

    monkeypatch.setattr(TrainingLoop, "run", run)
    records, targets, _ = compute_targets(tiny_unlabelled, both(teachers), reference=None)
    config = student_config(2)
    result = train_student(tiny_unlabelled, records, targets, config, tmp_path / "student")
    # An epoch shows each target once.
    shown = np.concatenate([batch_targets for _, batch_targets in seen])
    np.testing.assert_array_equal(np.sort(shown, axis=0), np.sort(targets, axis=0))
    assert (result["train_pictures"], result["unlabelled_pictures"]) == (32, 8)

    config = SpecialistConfig(
        MODEL,
        OptimizationConfig(steps=1),
        items_per_batch=3,
        pictures_per_item=4,
        input=STILL,
    )
    result = train_specialist(tiny_unlabelled, ["bags"], config, tmp_path / "bags", "bags")
    assert (result["train_pictures"], result["train_items"]) == (12, 3)


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


def test_the_student_comes_close_to_its_targets(tiny_prepared, teachers, tmp_path):
    records, targets, _ = compute_targets(
        tiny_prepared, both(teachers), reference=teachers / "reference"
    )
    result = train_student(tiny_prepared, records, targets, student_config(150), tmp_path)

    # For unit vectors the loss is (2 - 2 cos) / dim.
    assert 1 - result["last_loss"] * 8 / 2 > 0.9
    assert (result["train_pictures"], result["unlabelled_pictures"]) == (32, 0)


@pytest.mark.parametrize(
    ("whole", "count", "total", "share"),
    [
        # Steps, frozen steps and steps between validations.
        ((400, 100, 40), 2, 8, (100, 25, 10)),
        ((400, 100, 40), 8, 8, (400, 100, 40)),
        ((10, 0, 3), 1, 3, (3, 0, 1)),
        ((4, 1, 2), 1, 8, (1, 0, 1)),
        # Rounded alike, but the backbone is trained.
        ((10, 9, 1), 1, 4, (2, 1, 1)),
        # It is in none of them.
        ((10, 10, 1), 1, 4, (2, 2, 1)),
        ((2, 2, 1), 1, 8, (1, 1, 1)),
    ],
)
def test_a_student_of_some_verticals_has_their_share_of_all_that_counts_steps(
    whole, count, total, share
):
    def config(steps, frozen_steps, validate_every):
        return StudentConfig(
            MODEL,
            OptimizationConfig(steps=steps, frozen_steps=frozen_steps, seed=3),
            batch_size=16,
            loop=LoopConfig(validate_every=validate_every, checkpoint_every=7),
        )

    assert config(*whole).for_verticals(count, total) == config(*share)


def test_a_student_that_starts_from_a_model_starts_with_its_weights(
    tiny_prepared, teachers, tmp_path
):
    records, targets, _ = compute_targets(tiny_prepared, both(teachers), reference=None)
    config = student_config(
        1, optimization=OptimizationConfig(steps=1, learning_rate=0.0, weight_decay=0.0)
    )
    train_student(tiny_prepared, records, targets, config, tmp_path, start=teachers / "reference")

    kept, _ = load_embedding_model(tmp_path / "model")
    start, _ = load_embedding_model(teachers / "reference")
    for ours, expected in zip(kept.trainable_variables, start.trainable_variables):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())


def test_a_student_cannot_start_from_a_model_built_differently(tiny_prepared, teachers, tmp_path):
    records, targets, _ = compute_targets(tiny_prepared, both(teachers), reference=None)
    config = student_config(1, model=dataclasses.replace(MODEL, pooling="gem"))

    with pytest.raises(UserError, match=r"cannot start from .*reference.*average.*gem"):
        train_student(
            tiny_prepared, records, targets, config, tmp_path, start=teachers / "reference"
        )


def test_targets_of_another_length_than_the_student_are_refused(tiny_prepared, tmp_path):
    with pytest.raises(UserError, match="targets have 3 dimensions, --embedding_dim is 8"):
        train_student(
            tiny_prepared, np.array([0]), np.ones([1, 3], np.float32), student_config(1), tmp_path
        )


def test_a_student_without_targets_is_refused(tiny_prepared, tmp_path):
    none = np.zeros([0], np.int64), np.zeros([0, 8], np.float32)
    with pytest.raises(UserError, match="no targets"):
        train_student(tiny_prepared, *none, student_config(1), tmp_path)


def test_a_specialist_learns_to_tell_items_apart(tiny_prepared, tmp_path):
    config = SpecialistConfig(
        MODEL,
        OptimizationConfig(steps=40, learning_rate=3e-3),
        items_per_batch=4,
        pictures_per_item=4,
        input=STILL,
        loop=LoopConfig(validate_every=40),
    )
    result = train_specialist(tiny_prepared, ["bags"], config, tmp_path, "bags")

    assert result["train_items"] == 4
    assert result["validation_r_at_1"] == 1.0
    assert result["last_loss"] < 0.2


def test_a_specialist_without_enough_items_names_the_verticals_and_the_bound(
    tiny_prepared, tmp_path
):
    config = SpecialistConfig(MODEL, OptimizationConfig(steps=1), min_pictures=5)

    with pytest.raises(UserError, match=r"lone \(bags\), split train: 0 of 4 items have 5"):
        train_specialist(tiny_prepared, ["bags"], config, tmp_path, "lone")


def test_a_split_that_answers_no_query_gives_no_validation(tiny_prepared):
    assert make_validation(tiny_prepared, ["bags"], 32, split="val") is not None
    lonely = _OnePicturePerItem(tiny_prepared)
    assert make_validation(lonely, ["bags"], 32, split="val") is None


class _OnePicturePerItem:
    """The dataset with every picture an item of its own."""

    def __init__(self, dataset):
        self._dataset = dataset

    def column(self, name):
        if name == "item_id":
            return np.arange(len(self._dataset)).astype(str).astype(object)
        return self._dataset.column(name)

    def __getattr__(self, name):
        return getattr(self._dataset, name)


def test_progress_is_quiet_where_nobody_watches(tiny_prepared, teachers, tmp_path, capfd):
    logging.getLogger("absl").setLevel(logging.ERROR)
    records, targets, _ = compute_targets(tiny_prepared, both(teachers), reference=None)
    capfd.readouterr()
    train_student(tiny_prepared, records, targets, student_config(2), tmp_path)

    assert "images" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("loss", "cosine_of"),
    [("cosine", lambda value: 1 - value), ("smooth_l1", lambda value: 1 - value * 8)],
)
def test_the_student_comes_close_to_its_targets_by_each_loss(
    tiny_prepared, teachers, tmp_path, loss, cosine_of
):
    records, targets, _ = compute_targets(
        tiny_prepared, both(teachers), reference=teachers / "reference"
    )
    config = student_config(100, loss=loss)
    result = train_student(tiny_prepared, records, targets, config, tmp_path)

    # While differences stay below delta, smooth_l1 is half the squared error, (1 - cos) / dim.
    assert cosine_of(result["last_loss"]) > 0.9


def test_the_student_comes_close_to_standardised_targets(tiny_prepared, teachers, tmp_path):
    records, targets, _ = compute_targets(
        tiny_prepared, both(teachers), reference=teachers / "reference"
    )
    config = student_config(150, standardise=True)
    train_student(tiny_prepared, records, targets, config, tmp_path)

    embedded = Embedder(load_embedding_model(tmp_path / "model")[0]).records(tiny_prepared, records)
    assert np.mean(np.sum(embedded * targets, axis=1)) > 0.9


def test_angles_are_not_standardised_which_is_told_before_anything_is_trained():
    with pytest.raises(UserError, match=r"--student_loss=cosine: allowed are mse and smooth_l1"):
        student_config(1, standardise=True, loss="cosine")


def test_targets_that_are_not_numbers_end_the_training_with_the_step(tiny_prepared, tmp_path):
    targets = np.full([4, 8], np.nan, np.float32)
    with pytest.raises(UserError, match="the loss is nan at step"):
        train_student(tiny_prepared, np.arange(4), targets, student_config(1), tmp_path)


def test_the_student_sees_a_lone_picture_in_half_of_each_batch_with_equal_weights(
    tiny_prepared, tmp_path, monkeypatch
):
    verticals = tiny_prepared.column("vertical")
    records = tiny_prepared.select(split="train")
    bags, dresses = (records[verticals[records] == name] for name in ("bags", "dresses"))
    records = np.append(bags[:1], dresses[:9])
    # The lone picture's target tells it apart.
    targets = np.tile(np.eye(8, dtype=np.float32)[0], [10, 1])
    targets[0] = np.eye(8)[1]
    seen = []
    monkeypatch.setattr(TrainingLoop, "run", lambda loop: seen.extend(loop._batches(0)) or {})
    for weights, share in (("pictures", 1), ("sqrt", 2.5), ("equal", 5)):
        seen.clear()
        train_student(
            tiny_prepared,
            records,
            targets,
            student_config(4, vertical_weights=weights, batch_size=10),
            tmp_path,
        )
        shown = [int(np.sum(batch_targets[:, 1])) for _, batch_targets in seen]
        assert len(shown) == 4
        assert all(abs(count - share) < 1 for count in shown), (weights, shown)


def test_unknown_weights_of_verticals_are_refused(tiny_prepared, tmp_path):
    config = student_config(1, vertical_weights="even")
    with pytest.raises(UserError, match="--student_vertical_weights=even: allowed are pictures"):
        train_student(tiny_prepared, np.arange(4), np.eye(4, 8), config, tmp_path)
