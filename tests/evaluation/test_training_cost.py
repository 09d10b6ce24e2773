"""Training costs of a model, on constructed stages."""

import dataclasses
import shutil

import pytest
import tensorflow as tf

from apparel_embed.common.text import plain_text
from apparel_embed.evaluation.training_cost import TrainingCost, training_cost_table, training_costs
from apparel_embed.models.computing import multiply_adds
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.store.record import StageSpec
from apparel_embed.store.runs import run_stage

MODEL = ModelConfig(image_size=32, embedding_dim=8)
# Multiply-adds of one image.
ONE = 20


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Replaces counting multiply-adds, and records the input sizes of the models built."""
    built = []

    def count(model):
        built.append(model.input_shape[1])
        return ONE

    monkeypatch.setattr("apparel_embed.evaluation.training_cost.multiply_adds", count)
    return built


class Run:
    def __init__(self, directory):
        self.directory = directory

    def make(self, name, *behind, steps=None, seconds=1.5, trained=True, model=MODEL, **flags):
        result = {} if steps is None else {"trained_steps": steps, "trained_seconds": seconds}
        return run_stage(
            StageSpec(
                self.directory / name,
                flags={
                    "model": dataclasses.asdict(model),
                    "optimization": {"train_backbone": trained},
                    **flags,
                },
                inputs={"prepared": "of data", **{one.name: one.fingerprint for one in behind}},
                work=lambda directory: result,
            )
        )

    def triplets(self, name, *behind, steps, **options):
        options = {"items_per_batch": 4, "images_per_item": 3, **options}
        return self.make(name, *behind, steps=steps, **options)

    def cost(self, name, stages):
        (found,) = training_costs(self.directory, {name: stages})
        return found


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def test_every_training_behind_a_model_counts_once(run):
    start = run.triplets("combined-start", steps=10)
    some = [run.triplets(f"specialist-{name}", start, steps=5) for name in ("bag", "dress")]
    targets = run.make("targets", *some, start)
    student = run.make("student", targets, start, steps=7, batch_size=8)

    # All others were made from the start, which counts once; targets are not a training.
    cost = run.cost("unified", [student])
    assert (cost.model, cost.trainings, cost.steps, cost.seconds) == ("unified", 4, 27, 6.0)
    # Forward and backward.
    assert cost.multiply_adds == 3 * ONE * (10 * 12 + 2 * 5 * 12 + 7 * 8)
    assert run.cost("specialists", some).trainings == 3
    assert run.cost("combined", [start]) == TrainingCost("combined", 1, 10, 1.5, 3 * ONE * 10 * 12)


def test_an_untrained_backbone_takes_only_a_forward_pass(run):
    frozen = run.triplets("specialist-bag", steps=5, trained=False)
    assert run.cost("specialists", [frozen]).multiply_adds == ONE * 5 * 12


def test_multiply_adds_are_counted_once_per_configuration_of_all_models(run, counted):
    larger = dataclasses.replace(MODEL, image_size=64)
    stages = [
        run.triplets("a", steps=1),
        run.triplets("b", steps=1),
        run.triplets("c", steps=1, model=larger),
    ]
    costs = training_costs(run.directory, {"specialists": stages, "combined": stages[:1]})
    assert [cost.model for cost in costs] == ["specialists", "combined"]
    assert sorted(counted) == [32, 64]


def test_a_stage_that_was_replaced_later_is_not_behind_a_model(run):
    start = run.triplets("combined-start", steps=10)
    own = run.triplets("specialist-bag", start, steps=5)
    shutil.rmtree(start.directory)
    assert run.cost("specialists", [own]).trainings == 1
    run.triplets("combined-start", steps=11, items_per_batch=5)
    assert run.cost("specialists", [own]).steps == 5


def test_the_table_shows_steps_time_and_multiply_adds():
    text = plain_text(
        training_cost_table([TrainingCost("unified", 4, 12_345, 3661.4, 1_230_000_000)])
    )
    cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert cells == ["unified", "4", "12,345", "1:01:01", "1.23 G"]


def test_multiply_adds_of_a_layer_computed_by_hand():
    inputs = tf.keras.Input([6, 6, 3])
    x = tf.keras.layers.Conv2D(5, 3, padding="valid", use_bias=False)(inputs)
    model = tf.keras.Model(inputs, x)
    # 4 x 4 positions, each mapping 3 x 3 x 3 inputs to 5 channels.
    assert multiply_adds(model) == 16 * 27 * 5


def test_multiply_adds_grow_with_the_area_of_images():
    def of_size(size):
        return multiply_adds(build_embedding_model(ModelConfig(image_size=size, embedding_dim=8)))

    assert 3.5 < of_size(128) / of_size(64) < 4.5
