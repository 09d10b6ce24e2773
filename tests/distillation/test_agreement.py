"""A student's agreement with its teachers, and the diagnosis of its training."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_teachers import MODEL, both, targets_of, taught

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.distillation import agreement
from apparel_embed.distillation.agreement import (
    Agreement,
    augmented_agreement,
    diagnose,
    make_agreement,
)
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.training import student
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.validation import Validation, recall_within


@pytest.mark.parametrize(
    ("found", "kept_step", "expected"),
    [
        (
            Agreement(0.5, 0.5, 0.5),
            0,
            "no step was better on split val than the initial model, which was kept",
        ),
        (
            Agreement(0.904, 0.9, 0.8),
            1000,
            "too few steps: cosine with its teachers is only 0.90, and was still improving at the "
            "end",
        ),
        (
            Agreement(0.904, 0.9, None),
            901,
            "too few steps: cosine with its teachers is only 0.90, and was still improving at the "
            "end",
        ),
        (
            Agreement(0.904, 0.9, 0.9),
            900,
            "too small a model: cosine with its teachers is only 0.90 on training images, and has "
            "stopped improving",
        ),
        (
            Agreement(0.99, 0.98, None),
            1000,
            "split val is empty: agreement on unseen images is unknown",
        ),
        (
            Agreement(0.99, 0.98, 0.93),
            900,
            "too little data: cosine with its teachers is 0.99 on training images, but 0.93 on "
            "others",
        ),
        (
            Agreement(0.99, 0.98, 0.97),
            1000,
            "split val has no answered query: R@1 against its teachers is unknown",
        ),
        (
            Agreement(0.99, 0.98, 0.97, 0.73, 0.77, 0.03),
            1000,
            "it finds less than its teachers (R@1 0.730, its teachers 0.770, on split val): more "
            "steps or a larger model would help",
        ),
        (
            Agreement(0.99, 0.98, 0.97, 0.73, 0.75, 0.03),
            1000,
            "it does not clearly find less than its teachers (R@1 0.730, its teachers 0.750, on "
            "split val): better teachers would help",
        ),
    ],
)
def test_a_diagnosis_says_what_limits_the_agreement(found, kept_step, expected):
    assert diagnose(found, kept_step=kept_step, trained_steps=1000, interval=100) == expected


@pytest.mark.slow
def test_agreement_is_the_mean_cosine_of_evenly_spread_images(tiny_prepared, teachers, monkeypatch):
    embedder = Embedder(load_embedding_model(teachers / "bags")[0])
    records = tiny_prepared.select(split="train")
    own = embedder.records(tiny_prepared, records)
    size = MODEL.image_size
    assert make_agreement(tiny_prepared, records, own, size)(embedder) == pytest.approx(1, abs=1e-5)
    assert make_agreement(tiny_prepared, records, -own, size)(embedder) == pytest.approx(
        -1, abs=1e-5
    )
    half = np.where((np.arange(len(own)) % 2)[:, np.newaxis], own, -own)
    assert make_agreement(tiny_prepared, records, half, size)(embedder) == pytest.approx(
        0, abs=1e-5
    )
    monkeypatch.setattr(agreement, "_MOST_IMAGES", 3)
    spread = np.arange(3) * len(own) // 3
    used = np.where(np.isin(np.arange(len(own)), spread)[:, np.newaxis], own, -own)
    assert make_agreement(tiny_prepared, records, used, size)(embedder) == pytest.approx(
        1, abs=1e-5
    )
    assert make_agreement(tiny_prepared, records[:0], own[:0], size)(embedder) is None


def test_agreement_on_augmented_views_uses_the_augmented_images():
    inputs = tf.keras.Input([2, 2, 1])
    model = tf.keras.Model(inputs, tf.keras.layers.UnitNormalization()(inputs[:, 0, :, 0]))
    images = np.zeros([4, 2, 2, 1], np.float32)
    images[:, 0, 0, 0] = 1
    targets = np.array([[1, 0]] * 4, np.float32)
    batches = tf.data.Dataset.from_tensor_slices(((images, np.arange(4)), targets)).batch(2)

    assert augmented_agreement(model, batches, lambda batch: batch[0]) == pytest.approx(1)
    mirrored = augmented_agreement(model, batches, lambda batch: tf.reverse(batch[0], [2]))
    assert mirrored == pytest.approx(0)
    # Random draws select the views.
    some = augmented_agreement(
        model,
        batches,
        lambda batch: tf.where(
            (batch[1] == 0)[:, None, None, None], batch[0], tf.reverse(batch[0], [2])
        ),
    )
    assert some == pytest.approx(1 / 4)


STILL = InputConfig(augment=AugmentConfig(flip=False, zoom=0.0, translation=0.0))


def trained(dataset, teachers, directory, steps, **options):
    targets = targets_of(dataset, both(teachers), teachers / "reference")
    learnt, held_out = taught(targets)
    if not options.pop("held_out", True):
        held_out = held_out[0][:0], held_out[1][:0]
    config = StudentConfig(
        MODEL,
        OptimizationConfig(
            steps=steps, **{"learning_rate": 5e-3, **options.pop("optimization", {})}
        ),
        batch_size=16,
        input=STILL,
        loop=LoopConfig(validate_every=steps),
    )
    return targets, train_student(dataset, learnt, held_out, config, directory, **options)


@pytest.mark.slow
def test_a_students_result_has_its_agreement_and_diagnosis(tiny_prepared, teachers, tmp_path):
    targets, result = trained(tiny_prepared, teachers, tmp_path, 60)

    assert json.loads(json.dumps(result)) == result
    embedder = Embedder(load_embedding_model(tmp_path / "model")[0])
    found = Agreement(**result["agreement"])
    for mean, records, expected in (
        (found.train, targets.records, targets.embeddings),
        (found.held_out, targets.held_out_records, targets.held_out),
    ):
        own = embedder.records(tiny_prepared, records)
        assert mean == pytest.approx(np.mean(np.sum(own * expected, axis=1)), abs=1e-4)
    # Nothing is augmented.
    assert found.augmented == pytest.approx(found.train, abs=0.02)
    assert found.train > 0.8
    assert result["trained_steps"] == result["kept_step"] == 60
    val = evaluation_set(tiny_prepared, "val")
    np.testing.assert_array_equal(val.records, targets.held_out_records)
    assert found.r_at_1 == result["validation_r_at_1"]
    assert found.teachers_r_at_1 == np.mean(list(recall_within(targets.held_out, val).values()))
    assert 0 < found.error < 0.5
    expected = diagnose(found, kept_step=60, trained_steps=60, interval=60)
    assert result["diagnosis"] == expected


@pytest.mark.slow
def test_held_out_agreement_is_none_without_held_out_images(tiny_prepared, teachers, tmp_path):
    _, result = trained(tiny_prepared, teachers, tmp_path, 1, held_out=False)
    assert result["agreement"]["held_out"] is None
    assert -1 <= result["agreement"]["train"] <= 1


@pytest.mark.slow
def test_a_student_kept_at_its_initial_weights_says_so(
    tiny_prepared, teachers, tmp_path, monkeypatch
):
    # R@1 of the initial model, and of the last step.
    values = iter([0.9, 0.1])
    validation = Validation(lambda embedder: next(values))
    monkeypatch.setattr(student, "make_validation", lambda *_, **__: validation)
    targets, result = trained(tiny_prepared, teachers, tmp_path, 2, start=teachers / "reference")

    assert (result["kept_step"], result["trained_steps"]) == (0, 2)
    assert result["validation_r_at_1"] == 0.9
    assert result["diagnosis"].startswith("no step was better on split val than the initial model")
    start, _ = load_embedding_model(teachers / "reference")
    kept, _ = load_embedding_model(tmp_path / "model")
    for ours, expected in zip(kept.get_weights(), start.get_weights()):
        np.testing.assert_array_equal(ours, expected)
    # Its agreement is that of the kept weights.
    own = Embedder(start).records(tiny_prepared, targets.records)
    cosine = np.mean(np.sum(own * targets.embeddings, axis=1))
    assert result["agreement"]["train"] == pytest.approx(cosine, abs=1e-4)
