import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny_teachers import write_model

from apparel_embed.common.errors import UserError
from apparel_embed.evaluation import routing
from apparel_embed.evaluation.models import embed_by_model, route_by_head
from apparel_embed.evaluation.protocol import SCOPES, evaluate_model, query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.models.vertical_head import VerticalHead, feature_model
from apparel_embed.training.vertical_head import _head, train_vertical_head


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    directory = tmp_path_factory.mktemp("student")
    write_model(directory, seed=4)
    return directory


@pytest.fixture(scope="module")
def trained(tiny_prepared, student):
    return train_vertical_head(tiny_prepared, student)


def test_the_reported_accuracy_is_that_of_the_head(tiny_prepared, student, trained):
    head, report = trained
    model, _ = load_embedding_model(student)
    embedder = Embedder(feature_model(model))
    assert head.verticals == ("bags", "dresses")
    for split, name in (("train", "train_accuracy"), ("val", "validation_accuracy")):
        records = tiny_prepared.select(split=split)
        predicted, _ = head.predict(embedder.records(tiny_prepared, records))
        right = predicted == tiny_prepared.column("vertical")[records]
        assert right.mean() == pytest.approx(report[name])
    assert report["train_accuracy"] > 0.6
    assert (report["train_images"], report["val_images"]) == (32, 16)


def test_with_few_validation_queries_no_search_is_routed(trained):
    head, report = trained

    assert head.routing_confidence is report["routing_confidence"] is None
    assert (report["val_queries"], report["routed_queries"]) == (16, 16)
    assert "16 val queries with an answer cannot show" in report["searches"]


def test_the_routing_confidence_is_measured_on_val_as_in_the_evaluation(
    tiny_prepared, student, trained, monkeypatch, tmp_path
):
    monkeypatch.setattr(routing, "LEAST_ROUTED", 1)
    head, report = train_vertical_head(tiny_prepared, student)
    val = evaluation_set(tiny_prepared, "val")
    model = embed_by_model(tiny_prepared, val.records, student)
    head.save(tmp_path)
    rows, entry = route_by_head("unified", model, tiny_prepared, val, student, tmp_path, 0)
    outcomes = [query_outcomes(model.embeddings, val, scope) for scope in SCOPES]
    rows += evaluate_model("unified", outcomes, parameters=1, models_to_deploy=1)
    pooled = {row["scope"]: row["r_at_1_pooled"] for row in rows if row["vertical"] == "ALL"}

    np.testing.assert_array_equal(head.weights, trained[0].weights)
    assert head.routing_confidence == report["routing_confidence"] == entry["routing_confidence"]
    assert head.routing_confidence is not None
    assert entry["routed"] == report["routed_queries"]
    gain = report["r_at_1_routed"] - report["r_at_1_merged"]
    share = entry["routed"] / report["val_queries"]
    assert pooled["served"] == pytest.approx(pooled["merged"] + gain * share)
    assert pooled["served"] >= max(pooled["merged"], pooled["routed"])


def test_without_validation_images_no_search_is_routed(tiny_prepared, student, monkeypatch):
    select = tiny_prepared.select

    def without_val(*, split=None, **options):
        found = select(split=split, **options)
        return found[:0] if split == "val" else found

    monkeypatch.setattr(tiny_prepared, "select", without_val)
    head, report = train_vertical_head(tiny_prepared, student)

    assert head.routing_confidence is None
    assert (report["strength"], report["validation_accuracy"]) == (0.1, None)
    assert (report["val_queries"], report["r_at_1_routed"]) == (0, None)


def test_the_same_data_gives_the_same_head(tiny_prepared, student, trained):
    again, report = train_vertical_head(tiny_prepared, student)

    np.testing.assert_array_equal(again.weights, trained[0].weights)
    np.testing.assert_array_equal(again.bias, trained[0].bias)
    assert report == trained[1]


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_equal_those_of_the_regression(classes):
    random = np.random.default_rng(0)
    number = np.arange(60) % classes
    labels = np.array([f"v{n}" for n in number])
    features = 5 + 3 * random.normal(size=(60, 4)) + number[:, np.newaxis]
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression().fit(scaler.transform(features), labels)
    head = _head(regression, scaler)
    logits = features @ head.weights + head.bias
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    np.testing.assert_allclose(
        scores, regression.predict_proba(scaler.transform(features)), atol=1e-5
    )
    predicted, confidence = head.predict(features)
    np.testing.assert_array_equal(predicted, regression.predict(scaler.transform(features)))
    np.testing.assert_allclose(confidence, scores.max(axis=1), atol=1e-5)


def test_a_saved_and_loaded_head_is_the_same(tmp_path):
    head = VerticalHead(("a b", "ä,ö"), np.eye(2, dtype=np.float32), np.ones(2, np.float32))
    head.save(tmp_path)
    read = VerticalHead.load(tmp_path)

    assert read.verticals == head.verticals
    np.testing.assert_array_equal(read.weights, head.weights)
    np.testing.assert_array_equal(read.bias, head.bias)
    assert read.routing_confidence is None
    dataclasses.replace(head, routing_confidence=0.1).save(tmp_path)
    assert VerticalHead.load(tmp_path).routing_confidence == 0.1
    with pytest.raises(UserError, match=r"vertical_head\.npz: expected a vertical head"):
        VerticalHead.load(tmp_path / "nowhere")


def test_a_head_for_one_vertical_is_refused(tiny_prepared, student, monkeypatch):
    column, same = tiny_prepared.column, np.array(["bags"] * 64, dtype=object)
    monkeypatch.setattr(
        tiny_prepared, "column", lambda name: same if name == "vertical" else column(name)
    )
    with pytest.raises(UserError, match="of two or more verticals, got 1"):
        train_vertical_head(tiny_prepared, student)
