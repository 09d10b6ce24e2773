"""A training loop on four items that differ in brightness and colour."""

import functools

import numpy as np
import tensorflow as tf

from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    load_embedding_model,
    save_embedding_model,
)
from apparel_embed.training.execution import reset_and_seed
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.strategy import make_strategy
from apparel_embed.training.validation import Validation

MODEL = ModelConfig(image_size=32, embedding_dim=8)


def batches_of(batch_size, steps, broken_from=None):
    """Returns batches of items that differ in brightness and colour, as a function of the step.

    Labels are negative from step `broken_from` on, counted from 1.
    """

    def one(step):
        labels = tf.range(batch_size, dtype=tf.int32) // 2
        seed = tf.stack([step, step])
        noise = tf.random.stateless_uniform([batch_size, 32, 32, 3], seed, 0.0, 60.0)
        base = tf.cast(labels, tf.float32)[:, None, None, None] * tf.constant([40.0, 10.0, 25.0])
        if broken_from is not None:
            labels = tf.where(step + 1 >= broken_from, -1, labels)
        return base + noise, labels

    return lambda first: tf.data.Dataset.range(first, steps).map(one)


def dropping_model():
    """Returns the model with dropout before its projection."""
    model = build_embedding_model(MODEL)
    projection, embedding = model.get_layer("projection"), model.get_layer("embedding")
    x = tf.keras.layers.Dropout(0.5)(model.get_layer("pooling").output)
    return tf.keras.Model(model.input, embedding(projection(x)))


def make_loop(
    directory,
    *,
    steps=6,
    strategy="one",
    validate=None,
    loss=None,
    build=lambda: build_embedding_model(MODEL),
    broken_from=None,
    log_every=1,
    checkpoint_every=2,
    validate_every=2,
    patience=0,
    keep_start=False,
    error=lambda metric: 0.0,
    prefer=lambda embedder: 0.0,
    **optimization,
):
    reset_and_seed(3)
    return TrainingLoop(
        build_model=build,
        save=functools.partial(save_embedding_model, config=MODEL),
        batches=batches_of(8, steps, broken_from),
        loss=loss or TripletSemiHardLoss(0.3),
        validation=Validation(validate, error, prefer) if validate else None,
        optimization=OptimizationConfig(steps=steps, seed=3, **optimization),
        config=LoopConfig(
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            log_every=log_every,
            patience=patience,
        ),
        strategy=make_strategy(strategy),
        directory=directory,
        what="tiny",
        keep_start=keep_start,
    )


def weights(loop):
    return [variable.numpy() for variable in loop.model.variables]


class InterruptAtStep:
    """A validation that raises KeyboardInterrupt at the given call."""

    def __init__(self, at):
        self.at = at
        self.calls = 0

    def __call__(self, embedder):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return 0.5


class Values:
    """A validation that returns given values, then repeats the last; counts its calls."""

    def __init__(self, *values):
        self.values, self.calls = values, 0

    def __call__(self, embedder):
        self.calls += 1
        return self.values[min(self.calls, len(self.values)) - 1]


def checkpoints_in(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def assert_kept(directory, step):
    """Asserts that the model has the weights of a checkpoint."""
    kept, _ = load_embedding_model(directory / "model")
    with np.load(directory / f"checkpoints/step-{step:08d}.npz") as file:
        best = [file[name] for name in file.files if name.startswith("model/")]
    described = [
        sorted((one.shape, one.sum()) for one in some) for some in (kept.get_weights(), best)
    ]
    assert described[0] == described[1]
