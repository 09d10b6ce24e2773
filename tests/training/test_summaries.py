"""TensorBoard summaries of trainings can be read back and do not change the results."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
from event_files import only_image, read_events
from tiny_teachers import MODEL

from apparel_embed.data.augment import AugmentConfig
from apparel_embed.data.labelled_sheet import SIDE
from apparel_embed.losses.distances import pairwise_distances
from apparel_embed.losses.registry import LossConfig
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.training import trainer
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.settings import ExecutionConfig, OptimizationConfig
from apparel_embed.training.specialist import SpecialistConfig, train_specialist
from apparel_embed.training.student import StudentConfig, train_student
from apparel_embed.training.summaries import Measures, spread

STEPS = 4
VERTICALS = ("bags", "dresses")
STILL = InputConfig(augment=AugmentConfig(flip=False, zoom=0.0, translation=0.0))
SPECIALIST = SpecialistConfig(
    MODEL,
    OptimizationConfig(STEPS, learning_rate=0.0, warmup_fraction=0.0, weight_decay=0.0),
    items_per_batch=8,
    images_per_item=4,
    # Not the default loss, which takes a while to compile.
    loss=LossConfig("hard"),
    input=STILL,
    loop=LoopConfig(validate_every=2, checkpoint_every=2, log_every=2),
)


@pytest.fixture(scope="module")
def trained(tiny_prepared, tmp_path_factory):
    """A specialist with learning rate 0, whose only batch is all training images, unaugmented."""
    directory = tmp_path_factory.mktemp("specialist")
    result = train_specialist(tiny_prepared, VERTICALS, SPECIALIST, directory, "tiny")
    return directory, result["kept_step"], *read_events(directory / "tensorboard")


def test_a_specialist_logs_all_measures_at_the_logged_steps(trained):
    _, _, found, has_graph = trained
    assert has_graph
    plugins = {
        "scalars": [
            "loss",
            "learning_rate",
            "triplets/active_share",
            "distances/mean_to_positives",
            "distances/mean_to_negatives",
            "embeddings/spread",
            "embeddings/mean_norm_before_scaling",
            "validation/r_at_1",
            "validation/r_at_1/bags",
            "validation/r_at_1/dresses",
        ],
        "histograms": ["distances/to_positives", "distances/to_negatives", "embeddings/norms"],
    }
    for plugin, names in plugins.items():
        for name in names:
            assert found[name].plugin == plugin, name
            assert sorted(found[name].values) == [2, 4], name
    assert found["first_batch"].plugin == "images"
    assert list(found["first_batch"].values) == [0]
    by_vertical = [found[f"validation/r_at_1/{name}"].last for name in VERTICALS]
    assert found["validation/r_at_1"].last == pytest.approx(np.mean(by_vertical))


def test_logged_measures_of_a_batch_are_those_of_the_model(trained, tiny_prepared):
    directory, kept, found, _ = trained
    model, _ = load_embedding_model(directory / "model")
    records = tiny_prepared.select(split="train")
    images = [tf.io.decode_jpeg(one) for one in tiny_prepared.read_images(records)]
    vectors = tf.keras.Model(model.input, model.get_layer("projection").output)(
        tf.cast(images, tf.float32)
    ).numpy()
    norms = np.linalg.norm(vectors, axis=1)
    embeddings = vectors / norms[:, None]
    items = tiny_prepared.column("item_id")[records]
    distances = pairwise_distances(embeddings, "L2").numpy()
    same, other = items[:, None] == items, ~np.eye(len(items), dtype=bool)
    positives, negatives = distances[same & other], distances[~same]
    active = [
        np.mean(distances[anchor, same[anchor] & other[anchor]][:, None] + 0.3 > row[~same[anchor]])
        for anchor, row in enumerate(distances)
    ]
    expected = {
        "triplets/active_share": np.mean(active),
        "distances/mean_to_positives": positives.mean(),
        "distances/mean_to_negatives": negatives.mean(),
        "embeddings/spread": spread(embeddings),
        "embeddings/mean_norm_before_scaling": norms.mean(),
    }
    for name, value in expected.items():
        assert found[name].values[kept] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    for name, values in (
        ("distances/to_positives", positives),
        ("distances/to_negatives", negatives),
        # Halved below to count each once, as with pairs.
        ("embeddings/norms", np.repeat(norms, 2)),
    ):
        left, right, counts = found[name].values[kept].T
        assert counts.sum() == len(values) / 2
        assert (left[0], right[-1]) == pytest.approx((values.min(), values.max()), abs=1e-3)


def test_the_first_batch_is_shown_with_one_item_per_line(trained, tiny_prepared):
    _, _, found, _ = trained
    sheet = only_image(found["first_batch"])
    step, line = (sheet.shape[1] - 6) // 8, (sheet.shape[0] - 6) // 4
    shown = [
        sheet[6 + y * line : 6 + y * line + SIDE, 6 + x * step : 6 + x * step + SIDE]
        for y in range(4)
        for x in range(8)
    ]
    colours = np.array([one.mean(axis=(0, 1)) for one in shown]).reshape(8, 4, 3)
    # The four images of each item have one colour, plus noise.
    assert colours.std(axis=1).max() < 5
    assert len(np.unique(colours.mean(axis=1).round(-1), axis=0)) == 8


def test_a_student_logs_its_distance_to_the_targets(tiny_prepared, tmp_path):
    records = tiny_prepared.select(split="train")
    random = np.random.default_rng(0)
    targets = random.normal(size=(len(records), 8)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    config = StudentConfig(
        MODEL,
        OptimizationConfig(2),
        batch_size=len(records),
        loop=LoopConfig(validate_every=2, log_every=2),
    )
    held_out = tiny_prepared.select(split="val")
    theirs = np.tile(targets[:1], [len(held_out), 1])
    train_student(tiny_prepared, (records, targets), (held_out, theirs), config, tmp_path)

    found, has_graph = read_events(tmp_path / "tensorboard")
    assert has_graph
    values = {name: logged.last for name, logged in found.items() if logged.plugin == "scalars"}
    # Against held-out targets on split val.
    assert -1 <= values["validation/mean_cosine"] <= 1
    left, right, counts = found["targets/distances"].last.T
    assert counts.sum() == len(records)
    assert left[0] <= values["targets/mean_distance"] <= right[-1]
    assert -1 <= values["targets/mean_cosine"] <= 1
    assert values["targets/spread"] == pytest.approx(spread(targets))
    assert 0 <= values["embeddings/spread"] <= 1
    assert {"embeddings/norms", "first_batch", "validation/r_at_1/bags"} <= set(found)
    assert not any(name.startswith("triplets") for name in found)


class Cut(Exception):
    pass


@pytest.mark.slow
def test_summaries_and_interruptions_do_not_change_the_bits_of_a_training(
    tiny_prepared, tmp_path, monkeypatch
):
    config = dataclasses.replace(
        SPECIALIST,
        optimization=OptimizationConfig(STEPS),
        # The most sensitive way to compute.
        execution=ExecutionConfig("float16", jit_compile=True),
    )
    weights = []

    def train(name):
        train_specialist(tiny_prepared, VERTICALS, config, tmp_path / name, "tiny")
        model, _ = load_embedding_model(tmp_path / name / "model")
        weights.append(model.get_weights())

    train("looked_at")
    # Interrupted after step 2, and resumed.
    save = TrainingLoop._save

    def cut(self, kept):
        save(self, kept)
        kept.wait()
        raise Cut

    monkeypatch.setattr(TrainingLoop, "_save", cut)
    with pytest.raises(Cut):
        train("cut")
    monkeypatch.setattr(TrainingLoop, "_save", save)
    train("cut")
    loop = TrainingLoop
    monkeypatch.setattr(trainer, "TrainingLoop", lambda summaries, **arguments: loop(**arguments))
    train("not_looked_at")

    for others in weights[1:]:
        for ours, expected in zip(others, weights[0]):
            np.testing.assert_array_equal(ours, expected)
    plain, has_graph = read_events(tmp_path / "not_looked_at/tensorboard")
    assert "triplets/active_share" not in plain
    assert not has_graph
    looked_at, _ = read_events(tmp_path / "looked_at/tensorboard")
    cut_off, _ = read_events(tmp_path / "cut/tensorboard")
    assert set(cut_off) == set(looked_at)
    for name in set(looked_at) - {"images_per_second"}:
        ours, expected = cut_off[name].values, looked_at[name].values
        assert sorted(ours) == sorted(expected), name
        for step, value in expected.items():
            np.testing.assert_array_equal(ours[step], value, err_msg=name)


def test_non_finite_values_are_not_in_histograms(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default():
        values = np.array([np.nan, 1.0, np.inf, 3.0])
        Measures({"nothing": float("nan")}, {"some": values, "none": values[:1]}).write(7)
    writer.close()
    found, _ = read_events(tmp_path)
    assert found["some"].last[:, 2].sum() == 2
    assert "none" not in found
    assert json.dumps(float(found["nothing"].last)) == "NaN"
