"""Evaluation from photographs to items, with a constructed detector and a small model."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from street_photographs import make_street, prepare_street

from apparel_embed.data.photographs import garments_of
from apparel_embed.evaluation import street as street_module
from apparel_embed.evaluation.detection import Found
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.evaluation.street import measure_street
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import build_embedding_model, save_embedding_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Photographs, their garments, and a model whose embeddings separate items by mean colour."""
    directory = tmp_path_factory.mktemp("street")
    photographs, dataset = prepare_street(make_street(directory), directory)
    config = ModelConfig(image_size=32, embedding_dim=8)
    model = build_embedding_model(config)
    save_embedding_model(directory / "model", model, config)
    images = evaluation_set(dataset, "test")
    embeddings = Embedder(model).records(dataset, images.records)
    return photographs, dataset, images, embeddings, directory


def measured(street, monkeypatch, change=lambda found: found):
    """Returns the measurement with a detector whose output is the truth, modified by `change`."""
    photographs, dataset, images, embeddings, directory = street

    def detect(photographs, records, detector):
        truth = garments_of(photographs, records)
        scores = np.full(len(truth.photographs), 0.9, np.float32)
        found = change(Found(truth.photographs, truth.boxes, scores, truth.verticals))
        return found, found.at_least(0.5), 0.5

    monkeypatch.setattr(street_module, "_detect", detect)
    return measure_street(
        photographs,
        dataset,
        images,
        embeddings,
        detector=directory,
        model=directory / "model",
        split="test",
        seed=0,
        output=directory,
    )


def test_a_perfect_detector_finds_as_much_as_true_boxes(street, monkeypatch):
    record = measured(street, monkeypatch)
    assert (record["ap50"], record["ap"]) == (1.0, 1.0)
    assert (record["photographs"], record["garments"], record["queries"]) == (8, 16, 16)
    assert (record["missed"], record["wrong_vertical"], record["false_alarms"]) == (0, 0, 0)
    assert record["r_at_1_detected"] == record["r_at_1_true_boxes"]
    assert record["r_at_1_detected"] > record["r_at_1_whole_photograph"]
    low, high = record["r_at_1_detected_low"], record["r_at_1_detected_high"]
    assert low <= record["r_at_1_detected"] <= high
    assert set(record["verticals"]) == {"bags", "dresses"}
    assert record["verticals"]["bags"]["queries"] == 8


def test_true_boxes_find_as_much_as_the_evaluation_of_single_garments(street, monkeypatch):
    _, _, images, embeddings, _ = street
    record = measured(street, monkeypatch)
    gallery, query = images.is_gallery, ~images.is_gallery
    right = []
    for vector, item, vertical in zip(
        embeddings[query], images.items[query], images.verticals[query]
    ):
        inside = gallery & (images.verticals == vertical)
        nearest = np.argmax(embeddings[inside] @ vector)
        right.append(images.items[inside][nearest] == item)
    assert record["r_at_1_true_boxes"] == pytest.approx(np.mean(right), abs=0.13)


def test_a_garment_missed_or_given_a_wrong_vertical_is_not_found(street, monkeypatch):
    def only_bags(found):
        return Found(*(values[found.verticals == "bags"] for values in found))

    record = measured(street, monkeypatch, only_bags)
    assert record["missed"] == 8
    assert record["verticals"]["dresses"]["r_at_1_detected"] == 0.0
    assert record["verticals"]["dresses"]["ap50"] == 0.0
    assert record["verticals"]["bags"]["ap50"] == 1.0

    def all_bags(found):
        return found._replace(verticals=np.full(len(found.scores), "bags", object))

    record = measured(street, monkeypatch, all_bags)
    assert (record["missed"], record["wrong_vertical"]) == (0, 8)
    assert record["verticals"]["dresses"]["r_at_1_detected"] == 0.0


def test_low_scores_count_only_for_average_precision(street, monkeypatch):
    def unlikely(found):
        return found._replace(scores=np.full(len(found.scores), 0.1, np.float32))

    record = measured(street, monkeypatch, unlikely)
    assert (record["ap50"], record["missed"], record["r_at_1_detected"]) == (1.0, 16, 0.0)


def test_the_result_and_its_sheet_of_images_are_written(street, monkeypatch):
    def with_alarm(found):
        extra = Found(
            np.array([3]), np.array([[0, 0, 1, 1]]), np.array([0.8]), np.array(["bags"], object)
        )
        return Found(*(np.concatenate(both) for both in zip(found, extra)))

    record = measured(street, monkeypatch, with_alarm)
    written = json.loads((street[-1] / "detection.json").read_text())
    assert written == json.loads(json.dumps(record))
    assert record["false_alarms"] == 1
    with Image.open(street[-1] / "detection.png") as sheet:
        assert sheet.width > 240


def test_a_photograph_does_not_find_itself(tmp_path, monkeypatch):
    manifest = make_street(tmp_path)
    # All images are query and gallery, so the nearest image would be the same crop.
    text = manifest.read_text().replace(",query,", ",both,")
    manifest.write_text(text)
    photographs, dataset = prepare_street(manifest, tmp_path)
    images = evaluation_set(dataset, "test")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(images), 8)).astype(np.float32)
    config = ModelConfig(image_size=32, embedding_dim=8)
    tf.keras.utils.set_random_seed(0)
    save_embedding_model(tmp_path / "model", build_embedding_model(config), config)
    street = (photographs, dataset, images, vectors, tmp_path)
    # Gallery vectors are random, so items are found only by chance.
    assert measured(street, monkeypatch)["r_at_1_true_boxes"] < 0.7
