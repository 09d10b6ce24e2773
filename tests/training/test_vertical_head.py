import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tiny_teachers import write_model

from apparel_embed.errors import UserError
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


def test_it_is_right_as_often_as_it_reports(tiny_prepared, student, trained):
    head, report = trained
    model, _ = load_embedding_model(student)
    embedder = Embedder(feature_model(model))
    assert head.verticals == ("bags", "dresses")
    for split, name in (("train", "train_accuracy"), ("val", "validation_accuracy")):
        records = tiny_prepared.select(split=split)
        predicted = head.predict(embedder.records(tiny_prepared, records))
        right = predicted == tiny_prepared.column("vertical")[records]
        assert right.mean() == pytest.approx(report[name])
    assert report["train_accuracy"] > 0.6
    assert (report["train_pictures"], report["val_pictures"]) == (32, 16)


def test_the_same_data_give_the_same_head(tiny_prepared, student, trained):
    again, report = train_vertical_head(tiny_prepared, student)

    np.testing.assert_array_equal(again.weights, trained[0].weights)
    np.testing.assert_array_equal(again.bias, trained[0].bias)
    assert report == trained[1]


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_are_those_of_the_regression(classes):
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
    np.testing.assert_array_equal(
        head.predict(features), regression.predict(scaler.transform(features))
    )


def test_a_head_is_read_as_it_was_written(tmp_path):
    head = VerticalHead(("a b", "ä,ö"), np.eye(2, dtype=np.float32), np.ones(2, np.float32))
    head.save(tmp_path)
    read = VerticalHead.load(tmp_path)

    assert read.verticals == head.verticals
    np.testing.assert_array_equal(read.weights, head.weights)
    np.testing.assert_array_equal(read.bias, head.bias)
    with pytest.raises(UserError, match=r"vertical_head\.npz: no vertical head here"):
        VerticalHead.load(tmp_path / "nowhere")


def test_one_vertical_needs_no_head(tiny_prepared, student, monkeypatch):
    column, same = tiny_prepared.column, np.array(["bags"] * 64, dtype=object)
    monkeypatch.setattr(
        tiny_prepared, "column", lambda name: same if name == "vertical" else column(name)
    )
    with pytest.raises(UserError, match="of 1 verticals; a vertical head needs two"):
        train_vertical_head(tiny_prepared, student)
