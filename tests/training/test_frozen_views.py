"""Features of augmented views from a frozen backbone, computed once for all trainings."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_teachers import MODEL

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.distillation.config import TargetsConfig
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import (
    build_embedding_model,
    head_models,
    load_embedding_model,
    trunk_model,
)
from apparel_embed.models.pooling import NORM
from apparel_embed.models.principal import project_principally
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.specialist import specialist_stage
from apparel_embed.runs.stages.student import student_stage
from apparel_embed.runs.stages.targets import targets_stage
from apparel_embed.runs.stages.views import VIEWS_FILE
from apparel_embed.store.names import COMBINED, FROZEN_VIEWS, STUDENT
from apparel_embed.training.config import StudentConfig
from apparel_embed.training.frozen_views import FrozenViews, compute_views
from apparel_embed.training.input import InputConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig

STILL = AugmentConfig(flip=False, zoom=0.0, translation=0.0)
PYRAMID = dataclasses.replace(MODEL, pooling="pyramid")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of initial weights of the backbone."""
    tf.keras.utils.set_random_seed(5)
    backbone = build_embedding_model(MODEL).get_layer("backbone")
    path = tmp_path_factory.mktemp("weights") / "backbone.weights.h5"
    backbone.save_weights(path)
    return str(path)


def frozen(weights, steps, learning_rate=1e-2, **changes):
    """Returns the training of a model with a frozen backbone."""
    return SpecialistConfig(
        PYRAMID,
        OptimizationConfig(steps=steps, learning_rate=learning_rate, train_backbone=False),
        init_weights=weights,
        items_per_batch=3,
        images_per_item=2,
        input=InputConfig(**{"views": 3, **changes}),
    )


@pytest.mark.parametrize("pooling", ["average", "pyramid"])
def test_trunk_and_head_together_equal_the_model(pooling):
    model = build_embedding_model(dataclasses.replace(MODEL, pooling=pooling))
    images = tf.random.stateless_uniform([3, 32, 32, 3], [1, 2], 0, 255)
    expected = model(images).numpy()
    trunk = trunk_model(model)
    head, unscaled = head_models(model)

    np.testing.assert_array_equal(head(trunk(images)), expected)
    vectors, embeddings = unscaled(trunk(images))
    np.testing.assert_array_equal(embeddings, expected)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors / lengths, expected, atol=1e-6)


def test_views_without_augmentation_are_all_equal(tiny_prepared, weights):
    records = tiny_prepared.select(split="train")[:5]
    views = compute_views(tiny_prepared, records, PYRAMID, weights, augment=STILL, views=2)

    assert views.shape == (5, 2, 480)
    np.testing.assert_array_equal(views[:, 0], views[:, 1])
    moved = compute_views(
        tiny_prepared, records, PYRAMID, weights, augment=AugmentConfig(), views=2
    )
    assert np.abs(moved[:, 0] - moved[:, 1]).max() > 1e-3
    again = compute_views(
        tiny_prepared, records, PYRAMID, weights, augment=AugmentConfig(), views=2
    )
    np.testing.assert_array_equal(again, moved)


def test_a_draw_chooses_the_view():
    features = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2)
    views = FrozenViews(features)
    positions = tf.constant([2, 0, 1], tf.int64)
    draws = tf.constant([[0.0, 9.0], [0.3, 9.0], [0.999, 9.0]])

    found = views.augment((views.decode(views.read(positions)), draws))
    np.testing.assert_array_equal(found, [features[2, 0], features[0, 1], features[1, 3]])


@pytest.mark.slow
def test_trainings_of_a_run_share_views_and_do_not_change_the_backbone(
    tiny_prepared, tmp_path, weights
):
    config = frozen(weights, 6)
    start = specialist_stage(
        Run(tmp_path, tiny_prepared), ["bags", "dresses"], config, "combined-start"
    )
    made = (tmp_path / FROZEN_VIEWS / "stage.json").stat().st_mtime_ns
    bags = specialist_stage(Run(tmp_path, tiny_prepared), ["bags"], config, start=start)

    assert (tmp_path / FROZEN_VIEWS / "stage.json").stat().st_mtime_ns == made
    assert start.inputs[FROZEN_VIEWS] == bags.inputs[FROZEN_VIEWS]
    assert json.loads((tmp_path / FROZEN_VIEWS / "stage.json").read_text())["result"] == {
        "images": 32,
        "views": 3,
        "features": 480,
    }
    features = np.load(tmp_path / FROZEN_VIEWS / VIEWS_FILE).mean(axis=1)
    untrained = build_embedding_model(PYRAMID, weights).get_layer("backbone")
    for stage in (start, bags):
        model, _ = load_embedding_model(stage.directory / "model")
        for ours, theirs in zip(model.get_layer("backbone").weights, untrained.weights):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        # Batches of one vertical have other statistics; those of all training images are kept.
        norm = model.get_layer(NORM)
        np.testing.assert_allclose(norm.moving_mean, features.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(norm.moving_variance, features.var(axis=0), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("is_same", [True, False])
def test_a_student_that_starts_from_one_with_a_frozen_backbone_uses_views(
    tiny_prepared, tmp_path, weights, is_same
):
    config = frozen(weights, 2)
    both, run = ["bags", "dresses"], Run(tmp_path / "new", tiny_prepared)
    # A stage with a student's name; how it was trained does not matter.
    old = specialist_stage(Run(tmp_path / "old", tiny_prepared), both, config, STUDENT)
    targets = targets_stage(run, [old], None, TargetsConfig(PYRAMID.embedding_dim))
    if not is_same:
        tf.keras.utils.set_random_seed(6)
        weights = str(tmp_path / "other.weights.h5")
        build_embedding_model(MODEL).get_layer("backbone").save_weights(weights)
    student = StudentConfig(
        PYRAMID,
        config.optimization,
        init_weights=weights,
        init_from=tmp_path / "old",
        input=config.input,
    )
    new = student_stage(run, targets, student)

    assert new.inputs["init_from"] == old.fingerprint
    assert (FROZEN_VIEWS in new.inputs) == is_same
    first, second = (
        load_embedding_model(stage.directory / "model")[0].get_layer("backbone").get_weights()
        for stage in (old, new)
    )
    for ours, theirs in zip(second, first):
        np.testing.assert_array_equal(ours, theirs)
    # Teachers may learn from other images.
    teacher = dataclasses.replace(config, init_from=tmp_path / "old")
    stage = specialist_stage(run, both, teacher, COMBINED, earlier=[STUDENT])
    assert FROZEN_VIEWS not in stage.inputs


@pytest.mark.slow
@pytest.mark.parametrize("views", [0, 3])
def test_a_pretrained_model_starts_with_a_principal_projection(
    tiny_prepared, tmp_path, weights, views
):
    # With such a small learning rate, the kept weights are the initial ones.
    config = frozen(weights, 1, 1e-12, augment=STILL, views=views)
    stage = specialist_stage(Run(tmp_path, tiny_prepared), ["bags", "dresses"], config)
    found, _ = load_embedding_model(stage.directory / "model")

    expected = build_embedding_model(PYRAMID, weights)
    records = tiny_prepared.select(split="train")
    project_principally(expected, Embedder(trunk_model(expected)).records(tiny_prepared, records))
    for ours, theirs in zip(found.weights, expected.weights):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-3, err_msg=ours.name)


@pytest.mark.slow
def test_each_step_augments_if_the_backbone_has_no_initial_weights(tiny_prepared, tmp_path):
    config = SpecialistConfig(
        MODEL,
        OptimizationConfig(steps=2, train_backbone=False),
        items_per_batch=3,
        images_per_item=2,
    )
    # Without initial weights the backbone is random, and depends on the seed.
    stage = specialist_stage(Run(tmp_path, tiny_prepared), ["bags"], config)
    assert FROZEN_VIEWS not in stage.inputs
    assert not (tmp_path / FROZEN_VIEWS).exists()
