"""Training of a detector: learning, resuming with the same bits, and invalid input."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from event_files import read_events
from street_photographs import make_street, prepare_street

from apparel_embed.common.errors import UserError
from apparel_embed.data.augment import Augmenter
from apparel_embed.data.config import AugmentConfig
from apparel_embed.models.config import DetectorConfig, ModelConfig
from apparel_embed.models.detector import load_detector
from apparel_embed.models.embedding import build_embedding_model, save_embedding_model
from apparel_embed.training.config import DetectorTraining
from apparel_embed.training.detector import (
    move_garments,
    train_detector,
    warn_of_single_garments,
)
from apparel_embed.training.settings import LoopConfig, OptimizationConfig

TRAINING = DetectorTraining(
    DetectorConfig(image_size=64),
    OptimizationConfig(steps=24, learning_rate=3e-3),
    batch_size=8,
    loop=LoopConfig(validate_every=12, checkpoint_every=7, log_every=1),
)


REPLICAS = """
import sys
from pathlib import Path
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])

from apparel_embed.data.prepared import load_prepared
from apparel_embed.models.config import DetectorConfig
from apparel_embed.training.config import DetectorTraining
from apparel_embed.training.detector import train_detector
from apparel_embed.training.settings import OptimizationConfig

training = DetectorTraining(
    DetectorConfig(image_size=64),
    OptimizationConfig(steps=6, learning_rate=0.02, optimizer="sgd"),
    strategy=sys.argv[2],
)
train_detector(load_prepared(sys.argv[1]), training, Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    directory = tmp_path_factory.mktemp("street")
    return prepare_street(make_street(directory), directory)


def test_garments_outside_the_square_become_padding_and_others_move():
    augmenter = Augmenter(AugmentConfig(flip=True, zoom=0.0, translation=0.0))
    draws = np.full([2, Augmenter.draw(tf.constant([0, 0]), 1).shape[1]], 0.6, np.float32)
    draws[1, 0] = 0.1
    targets = tf.constant([[1.0, 0.1, 0.2, 0.4, 0.6, -1.0, 0, 0, 0, 0]] * 2)
    kept, mirrored = move_garments(augmenter, targets, tf.constant(draws)).numpy()
    np.testing.assert_allclose(kept[:5], [1.0, 0.1, 0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(mirrored[:5], [1.0, 0.6, 0.2, 0.9, 0.6], atol=1e-6)
    assert kept[5] == mirrored[5] == -1
    shifted = Augmenter(AugmentConfig(flip=False, zoom=0.0, translation=0.9))
    draws[:] = 1.0
    assert move_garments(shifted, targets, tf.constant(draws)).numpy()[0, 0] == -1


@pytest.mark.slow
def test_a_detector_learns_and_logs_its_boxes(street, tmp_path):
    photographs, _ = street
    training = dataclasses.replace(
        TRAINING,
        optimization=OptimizationConfig(steps=120, learning_rate=3e-3),
        loop=LoopConfig(validate_every=60, log_every=60),
    )
    result = train_detector(photographs, training, tmp_path)
    assert result["verticals"] == ["bags", "dresses"]
    assert (result["train_photographs"], result["train_garments"]) == (24, 48)
    assert result["validation_ap50"] > 0.8
    _, config = load_detector(tmp_path / "model")
    assert config.verticals == ("bags", "dresses")
    assert config.score_threshold == result["score_threshold"]
    logged, has_graph = read_events(tmp_path / "tensorboard")
    assert has_graph
    assert {"first_batch", "validation/boxes", "validation/ap50/bags"} <= set(logged)


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_same_bits(street, tmp_path):
    photographs, _ = street
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = train_detector(photographs, TRAINING, whole)
    # As if killed at step 18: the last checkpoint is that of step 14.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("apparel_embed.training.loop.TrainingLoop._log", _ended_at(17))
        with pytest.raises(KeyboardInterrupt):
            train_detector(photographs, TRAINING, cut)
    assert train_detector(photographs, TRAINING, cut)["last_loss"] == result["last_loss"]
    weights = [load_detector(part / "model")[0].get_weights() for part in (whole, cut)]
    for one, other in zip(*weights):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("garments", "warned"), [(10, True), (12, False)])
def test_little_more_than_one_garment_per_photograph_gives_a_warning(garments, warned, caplog):
    warn_of_single_garments(garments, photographs=10)
    expected = "1.00 garments per photograph: expected a row for every garment"
    assert (expected in caplog.text) == warned


def _ended_at(step):
    def log(self, loss, bar):
        if self._progress.step > step:
            raise KeyboardInterrupt
        self._progress.last_loss = float(loss)

    return log


@pytest.mark.slow
def test_two_replicas_give_the_weights_of_one_device(street, tmp_path):
    photographs, _ = street
    weights = {}
    for strategy in ("one", "mirrored"):
        directory = tmp_path / strategy
        subprocess.run(
            [sys.executable, "-c", REPLICAS, photographs.directory, strategy, directory],
            check=True,
            capture_output=True,
        )
        weights[strategy] = load_detector(directory / "model")[0].get_weights()
    for one, other in zip(weights["one"], weights["mirrored"]):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_detector_starts_from_the_backbone_of_an_embedding_model(street, tmp_path):
    photographs, _ = street
    config = ModelConfig(image_size=32, embedding_dim=4)
    model = build_embedding_model(config)
    save_embedding_model(tmp_path / "embedding", model, config)
    training = dataclasses.replace(
        TRAINING, optimization=OptimizationConfig(steps=1, train_backbone=False)
    )
    train_detector(photographs, training, tmp_path / "one", start=tmp_path / "embedding")
    detector, _ = load_detector(tmp_path / "one" / "model")
    expected = model.get_layer("backbone").trainable_weights
    found = detector.get_layer("backbone").trainable_weights
    assert len(expected) == len(found)
    for one, other in zip(expected, found):
        np.testing.assert_array_equal(one, other)
    other = dataclasses.replace(
        TRAINING, model=dataclasses.replace(TRAINING.model, backbone="mobilenet_v3_small")
    )
    with pytest.raises(UserError, match="its backbone is small_cnn, --detector_backbone is mobile"):
        train_detector(photographs, other, tmp_path / "two", start=tmp_path / "embedding")


def test_a_dataset_of_single_garments_is_refused(tiny_prepared, tmp_path):
    with pytest.raises(UserError, match="needs whole photographs, prepared with --photographs"):
        train_detector(tiny_prepared, TRAINING, tmp_path)
