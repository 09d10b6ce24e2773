"""Specialists and a student, on a tiny dataset whose items differ in hue."""

import dataclasses
import logging

import numpy as np
import pytest
from tiny_teachers import MODEL, both, targets_of, taught

from apparel_embed.common.errors import UserError
from apparel_embed.data.augment import AugmentConfig
from apparel_embed.evaluation.models import embed_by_model
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import (
    load_embedding_model,
)
from apparel_embed.training.config import LEAST_STUDENT_STEPS, MOST_STUDENT_STEPS, STUDENT_EPOCHS
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.settings import FEW_IMAGES, OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig, train_specialist
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.validation import make_validation

pytestmark = pytest.mark.slow

# The result of a training that was not run.
NOTHING = {"kept_step": 0, "trained_steps": 0}
NO_IMAGES = np.zeros([0], np.int64), np.zeros([0, 8], np.float32)
STILL = InputConfig(augment=AugmentConfig(flip=False, zoom=0.0, translation=0.0))


def student_config(steps, **changes):
    optimization = OptimizationConfig(steps=steps, learning_rate=5e-3)
    config = StudentConfig(
        MODEL, optimization, batch_size=16, input=STILL, loop=LoopConfig(validate_every=steps)
    )
    return dataclasses.replace(config, **changes)


def test_the_student_learns_from_unlabelled_images_and_specialists_do_not(
    tiny_unlabelled, teachers, tmp_path, monkeypatch
):
    seen = []

    def run(loop):
        seen.extend(loop.batches(0))
        # Validated as usual: split val answers all queries.
        assert loop._validation is not None
        return NOTHING

    monkeypatch.setattr(TrainingLoop, "run", run)
    targets = targets_of(tiny_unlabelled, both(teachers))
    config = student_config(2)
    result = train_student(tiny_unlabelled, *taught(targets), config, tmp_path / "student")
    # An epoch contains each target once.
    shown = np.concatenate([batch_targets for _, batch_targets in seen])
    np.testing.assert_array_equal(np.sort(shown, axis=0), np.sort(targets.embeddings, axis=0))
    assert (result["train_images"], result["unlabelled_images"]) == (32, 8)

    config = SpecialistConfig(
        MODEL,
        OptimizationConfig(steps=1),
        items_per_batch=3,
        images_per_item=4,
        input=STILL,
    )
    result = train_specialist(tiny_unlabelled, ["bags"], config, tmp_path / "bags", "bags")
    assert (result["train_images"], result["train_items"]) == (12, 3)


def test_the_student_comes_close_to_its_targets(tiny_prepared, teachers, tmp_path):
    targets = targets_of(tiny_prepared, both(teachers), teachers / "reference")
    result = train_student(tiny_prepared, *taught(targets), student_config(150), tmp_path)

    # For unit vectors the loss is (2 - 2 cos) / dim.
    assert 1 - result["last_loss"] * 8 / 2 > 0.9
    assert (result["train_images"], result["unlabelled_images"]) == (32, 0)


@pytest.mark.parametrize(
    ("whole", "count", "total", "share"),
    [
        # Steps, frozen steps and steps between validations.
        ((400, 100, 40), 2, 8, (100, 25, 10)),
        ((400, 100, 40), 8, 8, (400, 100, 40)),
        ((10, 0, 3), 1, 3, (3, 0, 1)),
        ((4, 1, 2), 1, 8, (1, 0, 1)),
        # Rounding must not freeze the backbone for all steps.
        ((10, 9, 1), 1, 4, (2, 1, 1)),
        # A backbone that is never trained stays frozen.
        ((10, 10, 1), 1, 4, (2, 2, 1)),
        ((2, 2, 1), 1, 8, (1, 1, 1)),
    ],
)
def test_a_student_of_some_verticals_has_their_share_of_steps(whole, count, total, share):
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
    targets = targets_of(tiny_prepared, both(teachers))
    config = student_config(
        1, optimization=OptimizationConfig(steps=1, learning_rate=0.0, weight_decay=0.0)
    )
    train_student(tiny_prepared, *taught(targets), config, tmp_path, start=teachers / "reference")

    kept, _ = load_embedding_model(tmp_path / "model")
    start, _ = load_embedding_model(teachers / "reference")
    for ours, expected in zip(kept.trainable_variables, start.trainable_variables):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())


@pytest.mark.parametrize("dim", [8, 11])
def test_a_start_in_another_space_is_rotated_onto_the_targets(
    tiny_prepared, teachers, tmp_path, dim
):
    start = teachers / "reference"
    records = tiny_prepared.select(split="train")
    embeddings = embed_by_model(tiny_prepared, records, start).embeddings
    random = np.random.default_rng(0)
    rotation = np.linalg.qr(random.normal(size=(dim, dim)))[0].astype(np.float32)
    targets = np.pad(embeddings, ((0, 0), (0, dim - 8))) @ rotation
    still = OptimizationConfig(steps=1, learning_rate=0.0, weight_decay=0.0)
    config = student_config(1, optimization=still)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, embedding_dim=dim))
    nothing = np.zeros(0, np.int64), np.zeros((0, dim), np.float32)
    train_student(
        tiny_prepared, (records, targets), nothing, config, tmp_path, start=start, rotate_start=True
    )

    def projection(directory):
        return load_embedding_model(directory)[0].get_layer("projection").get_weights()

    for ours, theirs in zip(projection(tmp_path / "model"), projection(start)):
        padding = [(0, 0)] * (theirs.ndim - 1) + [(0, dim - 8)]
        np.testing.assert_allclose(ours, np.pad(theirs, padding) @ rotation, atol=1e-4)


@pytest.mark.parametrize(
    ("learnt", "batch_size", "steps"),
    [
        (6400, 64, STUDENT_EPOCHS * 100),
        # The last batch of all epochs need not be full.
        (1001, 64, 1252),
        (100, 64, LEAST_STUDENT_STEPS),
        (10**7, 64, MOST_STUDENT_STEPS),
        (10**7, 10**7, LEAST_STUDENT_STEPS),
    ],
)
def test_the_number_of_images_decides_the_steps_of_a_student_by_default(learnt, batch_size, steps):
    config = dataclasses.replace(student_config(1), batch_size=batch_size)
    assert config.settled(learnt, learnt) == config
    config = dataclasses.replace(config, optimization=OptimizationConfig(steps=0, seed=3))
    settled = config.settled(learnt, learnt)
    assert settled == dataclasses.replace(
        config, optimization=OptimizationConfig(steps=steps, seed=3)
    )


def test_unresolved_steps_stay_unresolved_for_some_verticals():
    config = student_config(1, optimization=OptimizationConfig(steps=0))
    assert config.for_verticals(1, 4).optimization.steps == 0


def test_training_of_a_students_backbone_depends_only_on_labelled_images():
    config = student_config(1, optimization=OptimizationConfig(steps=1, train_backbone=None))
    for images, trained in ((FEW_IMAGES - 1, False), (FEW_IMAGES, True)):
        settled = config.settled(10**6, images)
        assert settled.optimization == OptimizationConfig(steps=1, train_backbone=trained)


def test_trainings_that_start_from_a_model_may_keep_it(
    tiny_prepared, teachers, tmp_path, monkeypatch
):
    keeps = []

    def run(loop):
        keeps.append(loop._keep_start)
        return NOTHING

    monkeypatch.setattr(TrainingLoop, "run", run)
    targets = targets_of(tiny_prepared, both(teachers))
    for start in (None, teachers / "reference"):
        train_student(tiny_prepared, *taught(targets), student_config(1), tmp_path, start=start)
    config = SpecialistConfig(
        MODEL, OptimizationConfig(steps=1), items_per_batch=3, images_per_item=4, input=STILL
    )
    for start in (None, teachers / "reference"):
        train_specialist(tiny_prepared, ["bags"], config, tmp_path, "bags", start)
    assert keeps == [False, True, False, True]


def test_a_student_cannot_start_from_a_model_with_another_architecture(
    tiny_prepared, teachers, tmp_path
):
    targets = targets_of(tiny_prepared, both(teachers))
    config = student_config(1, model=dataclasses.replace(MODEL, pooling="gem"))

    with pytest.raises(UserError, match=r"cannot start from .*reference.*gem, got average"):
        train_student(
            tiny_prepared, *taught(targets), config, tmp_path, start=teachers / "reference"
        )


def test_targets_of_another_length_than_the_student_are_refused(tiny_prepared, tmp_path):
    with pytest.raises(UserError, match="targets with --embedding_dim=8 dimensions, got 3"):
        short = np.array([0]), np.ones([1, 3], np.float32)
        train_student(tiny_prepared, short, NO_IMAGES, student_config(1), tmp_path)


def test_a_student_without_images_is_refused(tiny_prepared, tmp_path):
    with pytest.raises(UserError, match="no images to train on"):
        train_student(tiny_prepared, NO_IMAGES, NO_IMAGES, student_config(1), tmp_path)


def test_a_specialist_learns_to_distinguish_items(tiny_prepared, tmp_path):
    config = SpecialistConfig(
        MODEL,
        OptimizationConfig(steps=40, learning_rate=3e-3),
        items_per_batch=4,
        images_per_item=4,
        input=STILL,
        loop=LoopConfig(validate_every=40),
    )
    result = train_specialist(tiny_prepared, ["bags"], config, tmp_path, "bags")

    assert result["train_items"] == 4
    assert result["validation_r_at_1"] == 1.0
    assert result["last_loss"] < 0.2


def test_too_few_items_give_an_error_with_the_verticals_and_the_limit(tiny_prepared, tmp_path):
    config = SpecialistConfig(MODEL, OptimizationConfig(steps=1), min_images=5)

    with pytest.raises(UserError, match=r"lone \(bags\), split train: 0 of 4 items have 5"):
        train_specialist(tiny_prepared, ["bags"], config, tmp_path, "lone")


def test_a_split_that_answers_no_query_gives_no_validation(tiny_prepared):
    assert make_validation(tiny_prepared, ["bags"], 32) is not None
    lonely = _OneImagePerItem(tiny_prepared)
    assert make_validation(lonely, ["bags"], 32) is None


class _OneImagePerItem:
    """The dataset with a separate item for every image."""

    def __init__(self, dataset):
        self._dataset = dataset

    def column(self, name):
        if name == "item_id":
            return np.arange(len(self._dataset)).astype(str).astype(object)
        return self._dataset.column(name)

    def __getattr__(self, name):
        return getattr(self._dataset, name)


def test_no_progress_bar_is_shown_without_a_terminal(
    tiny_prepared, teachers, tmp_path, capfd, caplog
):
    caplog.set_level(logging.ERROR, logger="absl")
    targets = targets_of(tiny_prepared, both(teachers))
    capfd.readouterr()
    train_student(tiny_prepared, *taught(targets), student_config(2), tmp_path)

    assert "images" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("loss", "cosine_of"),
    [("cosine", lambda value: 1 - value), ("smooth_l1", lambda value: 1 - value * 8)],
)
def test_the_student_comes_close_to_its_targets_with_each_loss(
    tiny_prepared, teachers, tmp_path, loss, cosine_of
):
    targets = targets_of(tiny_prepared, both(teachers), teachers / "reference")
    config = student_config(100, loss=loss)
    result = train_student(tiny_prepared, *taught(targets), config, tmp_path)

    # With differences below delta, smooth_l1 is half the squared error, (1 - cos) / dim.
    assert cosine_of(result["last_loss"]) > 0.9


def test_the_student_comes_close_to_standardised_targets(tiny_prepared, teachers, tmp_path):
    targets = targets_of(tiny_prepared, both(teachers), teachers / "reference")
    config = student_config(150, standardise=True)
    train_student(tiny_prepared, *taught(targets), config, tmp_path)

    embedder = Embedder(load_embedding_model(tmp_path / "model")[0])
    embedded = embedder.records(tiny_prepared, targets.records)
    assert np.mean(np.sum(embedded * targets.embeddings, axis=1)) > 0.9


def test_standardised_targets_with_the_cosine_loss_are_refused_at_once():
    with pytest.raises(UserError, match=r"--student_loss=cosine: expected mse or smooth_l1"):
        student_config(1, standardise=True, loss="cosine")


def test_nan_targets_end_the_training_with_an_error_that_names_the_step(tiny_prepared, tmp_path):
    broken = np.arange(4), np.full([4, 8], np.nan, np.float32)
    with pytest.raises(UserError, match="the loss is nan at step"):
        train_student(tiny_prepared, broken, NO_IMAGES, student_config(1), tmp_path)


def test_vertical_weights_decide_how_often_the_student_sees_a_lone_image(
    tiny_prepared, tmp_path, monkeypatch
):
    verticals = tiny_prepared.column("vertical")
    records = tiny_prepared.select(split="train")
    bags, dresses = (records[verticals[records] == name] for name in ("bags", "dresses"))
    records = np.append(bags[:1], dresses[:9])
    # The lone image has its own target.
    targets = np.tile(np.eye(8, dtype=np.float32)[0], [10, 1])
    targets[0] = np.eye(8)[1]
    seen = []
    monkeypatch.setattr(TrainingLoop, "run", lambda loop: seen.extend(loop.batches(0)) or NOTHING)
    for weights, share in (("images", 1), ("sqrt", 2.5), ("equal", 5)):
        seen.clear()
        train_student(
            tiny_prepared,
            (records, targets),
            NO_IMAGES,
            student_config(4, vertical_weights=weights, batch_size=10),
            tmp_path,
        )
        shown = [int(np.sum(batch_targets[:, 1])) for _, batch_targets in seen]
        assert len(shown) == 4
        assert all(abs(count - share) < 1 for count in shown), (weights, shown)


def test_unknown_vertical_weights_are_refused(tiny_prepared, tmp_path):
    config = student_config(1, vertical_weights="even")
    with pytest.raises(UserError, match="--student_vertical_weights=even: expected one of images"):
        train_student(tiny_prepared, (np.arange(4), np.eye(4, 8)), NO_IMAGES, config, tmp_path)
