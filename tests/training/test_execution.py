import dataclasses
import functools
import types

import numpy as np
import pytest
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.computing import PRECISIONS, layer_precision
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.serving.saved_model import export_saved_model
from apparel_embed.training.execution import reset_and_seed
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.optimization import make_optimizer
from apparel_embed.training.settings import ExecutionConfig, OptimizationConfig
from apparel_embed.training.strategy import make_strategy
from apparel_embed.training.validation import Validation

SIDE = 16
MODEL = ModelConfig(image_size=32, embedding_dim=8)
WAYS = [(precision, jit) for precision in PRECISIONS for jit in (False, True)]


def build():
    """Returns a small network with the kinds of layers that backbones have."""
    layers = tf.keras.layers
    inputs = tf.keras.Input((SIDE, SIDE, 3), dtype="float32")
    backbone = tf.keras.Sequential(
        [
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(momentum=0.5),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(momentum=0.5),
            layers.ReLU(),
        ],
        name="backbone",
    )
    x = layers.GlobalAveragePooling2D(dtype="float32")(backbone(inputs / 255.0))
    x = layers.Dense(8, dtype="float32")(x)
    return tf.keras.Model(inputs, layers.UnitNormalization(dtype="float32")(x))


def batches(first):
    """Returns batches of four items that differ in colour."""

    def one(step):
        labels = tf.range(16, dtype=tf.int32) % 4
        noise = tf.random.stateless_uniform([16, SIDE, SIDE, 3], tf.stack([step, step]), 0.0, 90.0)
        base = tf.cast(labels, tf.float32)[:, None, None, None] * tf.constant([40.0, 10.0, 25.0])
        return base + noise, labels

    return tf.data.Dataset.range(first, 30).map(one)


def make_loop(directory, execution, **more):
    reset_and_seed(3)
    arguments = {
        "build_model": build,
        "save": functools.partial(save_embedding_model, config=ModelConfig()),
        "batches": batches,
        "loss": TripletSemiHardLoss(0.5),
        "validation": None,
        "optimization": OptimizationConfig(steps=30, learning_rate=0.01, warmup_fraction=0.0),
        "config": LoopConfig(log_every=1, validate_every=10, checkpoint_every=10),
        "strategy": make_strategy("one"),
        "directory": directory,
        "what": "tiny",
        "execution": execution,
    }
    return TrainingLoop(**{**arguments, **more})


def losses_in(directory):
    found = {}
    for path in sorted((directory / "tensorboard").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tag == "loss":
                    found[event.step] = float(tf.make_ndarray(value.tensor))
    return [found[step] for step in sorted(found)]


class Cut(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "jit"), WAYS)
def test_every_precision_learns_keeps_float32_weights_and_resumes_with_the_same_bits(
    tmp_path, precision, jit
):
    execution = ExecutionConfig(precision, jit)
    calls = []

    def cut_at_step_20(embedder):
        calls.append(embedder)
        if len(calls) == 2:
            raise Cut
        return 0.5

    whole = make_loop(tmp_path / "whole", execution, validation=Validation(lambda embedder: 0.5))
    whole.run()
    with pytest.raises(Cut):
        make_loop(tmp_path / "cut", execution, validation=Validation(cut_at_step_20)).run()
    cut = make_loop(tmp_path / "cut", execution, validation=Validation(lambda embedder: 0.5))
    cut.run()

    computed = whole.model.get_layer("backbone").output.dtype
    assert computed == precision
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    losses = losses_in(tmp_path / "whole")
    assert len(losses) == 30
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    for ours, expected in zip(cut.model.variables, whole.model.variables):
        assert ours.dtype == tf.float32
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.slow
def test_a_model_trained_in_half_precision_is_loaded_and_served_in_float32(tmp_path, tiny_prepared):
    def batches(first):
        images = tf.random.stateless_uniform([4, 32, 32, 3], [1, 2], 0, 255)
        return tf.data.Dataset.from_tensors((images, tf.constant([0, 0, 1, 1]))).repeat(30 - first)

    make_loop(
        tmp_path,
        ExecutionConfig("bfloat16"),
        build_model=lambda: build_embedding_model(MODEL),
        save=functools.partial(save_embedding_model, config=MODEL),
        batches=batches,
        optimization=OptimizationConfig(steps=2),
    ).run()
    model, _ = load_embedding_model(tmp_path / "model")
    assert model.get_layer("backbone").output.dtype == tf.float32
    export_saved_model(model, tmp_path / "saved")
    serve = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    found = serve(tf.constant(tiny_prepared.read_images([0, 1])))["embedding"]
    assert found.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_the_backbone_computes_in_half_precision(precision):
    with layer_precision(precision):
        model = build_embedding_model(dataclasses.replace(MODEL, pooling="gem"))
    assert model.get_layer("backbone").output.dtype == precision
    for name in ("rescaling", "pooling", "projection", "embedding"):
        assert model.get_layer(name).output.dtype == tf.float32
    assert {variable.dtype for variable in model.trainable_variables} == {tf.float32}


def test_the_policy_is_restored_after_an_error():
    with pytest.raises(Cut), layer_precision("float16"):
        raise Cut
    assert tf.keras.mixed_precision.global_policy().name == "float32"


def test_float16_skips_a_step_whose_gradient_overflows(tmp_path):
    # The gradient is finite, but overflows when scaled up by 2^15 in 16 bits.
    loop = make_loop(
        tmp_path,
        ExecutionConfig("float16"),
        loss=lambda labels, embeddings: 300.0 * tf.reduce_sum(embeddings),
        optimization=OptimizationConfig(steps=1, learning_rate=0.1, warmup_fraction=0.0),
    )
    before = loop.model.get_weights()
    loop.run()

    # The optimiser does not update the moving statistics.
    for variable, old in zip(loop.model.variables, before):
        if "moving" not in variable.name:
            np.testing.assert_array_equal(variable, old)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_nan_loss_ends_a_training_in_every_precision(tmp_path, precision):
    with pytest.raises(UserError, match="tiny: the loss is nan at step 1"):
        make_loop(
            tmp_path,
            ExecutionConfig(precision),
            loss=lambda labels, embeddings: tf.reduce_sum(embeddings) * float("nan"),
        ).run()


@pytest.mark.slow
def test_a_profile_of_the_requested_steps_is_written_for_tensorboard(tmp_path):
    make_loop(tmp_path / "none", ExecutionConfig()).run()
    make_loop(tmp_path / "some", ExecutionConfig(profile_steps=(3, 6))).run()
    make_loop(tmp_path / "end", ExecutionConfig(profile_steps=(28, 99))).run()

    for name, count in (("none", 0), ("some", 1), ("end", 1)):
        found = list((tmp_path / name / "tensorboard").rglob("*.xplane.pb"))
        assert len(found) == count, name
        assert all(path.stat().st_size > 1000 for path in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"precision": "float64"},
            "--precision=float64: expected one of float32, bfloat16, float16",
        ),
        ({"profile_steps": (3, 3)}, "--profile_steps=3:3: expected two numbers"),
        ({"profile_steps": (-1, 3)}, "--profile_steps=-1:3"),
    ],
)
def test_invalid_execution_settings_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        ExecutionConfig(**arguments)


def test_compilation_is_refused_on_several_replicas():
    ExecutionConfig(jit_compile=True).check(1)
    with pytest.raises(UserError, match="--jit_compile with 2 replicas: expected 1"):
        ExecutionConfig(jit_compile=True).check(2)


@pytest.mark.parametrize(
    ("kinds", "deterministic", "enabled"),
    [
        (["CPU"], None, True),
        (["CPU", "GPU"], None, False),
        (["CPU", "GPU"], True, True),
        (["CPU"], False, False),
    ],
)
def test_operations_are_deterministic_on_cpus_or_if_requested(
    monkeypatch, kinds, deterministic, enabled
):
    devices = [types.SimpleNamespace(device_type=kind) for kind in kinds]
    calls = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append(1))
    reset_and_seed(0, deterministic)
    assert bool(calls) == enabled


@pytest.mark.parametrize(("scale", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_learning_rates_grow_with_replicas_as_configured(scale, factor):
    config = OptimizationConfig(
        steps=10, learning_rate=0.1, warmup_fraction=0.0, scale_learning_rate=scale
    )
    optimizer = make_optimizer(config, replicas=4)
    assert float(optimizer._learning_rate(0)) == pytest.approx(0.1 * factor)
