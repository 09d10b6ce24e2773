"""Trains a small model for ten steps with a strategy; also a program.

    python replica_training.py <strategy> <devices> <prepared dataset> <output> [SIGTERM|SIGKILL]

With a signal, the last of several processes gets it while validating step 5. The number of devices
must be set before TensorFlow starts, so each number needs a separate process.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.cluster import is_chief
from apparel_embed.common.interruption import stopped_by_sigterm
from apparel_embed.data.augment import AugmentConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import PKSampler
from apparel_embed.inference.embed import Embedder
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.losses.keras import TripletSemiHardLoss
from apparel_embed.models.computing import set_momentum
from apparel_embed.models.embedding import ModelConfig, save_embedding_model
from apparel_embed.training.execution import reset_and_seed
from apparel_embed.training.input import InputConfig, augmentation, training_batches
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.settings import OptimizationConfig
from apparel_embed.training.strategy import batch_share, make_strategy
from apparel_embed.training.summaries import BatchSummaries, Measures, triplet_measures
from apparel_embed.training.validation import Validation, make_validation

STEPS = 10
SIDE = 16


def build() -> tf.keras.Model:
    """Returns a model with batch normalization and dropout, which depend on the whole batch."""
    layers = tf.keras.layers
    inputs = tf.keras.Input((SIDE, SIDE, 3))
    backbone = tf.keras.Sequential(name="backbone")
    for filters in (8, 16):
        backbone.add(layers.Conv2D(filters, 3, strides=2, use_bias=False))
        backbone.add(layers.BatchNormalization())
        backbone.add(layers.ReLU())
    x = layers.Flatten()(backbone(inputs / 255.0))
    x = layers.Dense(8, name="projection")(layers.Dropout(0.3)(x))
    model = tf.keras.Model(inputs, layers.UnitNormalization()(x))
    set_momentum(model, 0.9)
    return model


def signalled_in(validation: Validation, name: str) -> Validation:
    """Returns a validation during which the process gets a signal unless it is the chief."""

    def measure(embedder: Embedder) -> float:
        if not is_chief():
            os.kill(os.getpid(), signal.Signals[name])
        return validation.measure(embedder)

    return dataclasses.replace(validation, measure=measure)


def train(
    name: str, prepared: Path, directory: Path, ended_by: str | None = None
) -> dict[str, np.ndarray]:
    """Returns the weights, the last loss, the best validation and measurements of batches."""
    reset_and_seed(0)
    strategy = make_strategy(name)
    dataset = PreparedDataset.open(prepared)
    records = dataset.select(split="train")
    sampler = PKSampler.from_items(
        dataset.column("item_id")[records], items_per_batch=6, images_per_item=2, seed=0
    )
    store = ImageStore(dataset, records, SIDE, 1.0)
    measured = []
    validation = make_validation(dataset, dataset.verticals, SIDE)

    def measure(labels: np.ndarray, embeddings: np.ndarray, norms: np.ndarray) -> Measures:
        found = triplet_measures(labels, embeddings, norms, margin=0.5, distance="L2")
        measured.append(found.scalars)
        return found

    loop = TrainingLoop(
        build_model=build,
        save=functools.partial(save_embedding_model, config=ModelConfig()),
        batches=training_batches(store, sampler, STEPS, batch_share(strategy)),
        loss=TripletSemiHardLoss(0.5),
        validation=signalled_in(validation, ended_by) if ended_by else validation,
        optimization=OptimizationConfig(STEPS, optimizer="sgd", learning_rate=0.02),
        config=LoopConfig(validate_every=5, checkpoint_every=4),
        strategy=strategy,
        directory=directory,
        what=name,
        augment=augmentation(InputConfig(AugmentConfig(brightness=0.1, erase=0.3)), strategy),
        summaries=BatchSummaries(measure, lambda: np.zeros([1, 1, 3], np.uint8)),
    )
    untrained = [weight.copy() for weight in loop.model.get_weights()]
    result = loop.run()
    moved = [np.abs(a - b).max() for a, b in zip(loop.model.get_weights(), untrained)]
    return {
        "losses": np.array([result["last_loss"], result["validation_r_at_1"]]),
        "moved": np.array(max(moved)),
        # The share of active triplets is a count, which rounding may change.
        "measures": np.array(
            [one[n] for one in measured for n in sorted(one) if n != "triplets/active_share"]
        ),
        **{variable.name: variable.numpy() for variable in loop.model.variables},
    }


def main() -> None:
    """Trains with the arguments; of several processes only the chief writes to the output."""
    logging.set_verbosity(logging.INFO)
    strategy, devices, prepared, output, *signals = sys.argv[1:]
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = int(devices) * [tf.config.LogicalDeviceConfiguration()]
    tf.config.set_logical_device_configuration(cpu, logical)
    assert make_strategy(strategy).num_replicas_in_sync > 1
    directory = Path(output) if is_chief() else Path(f"{output}-{os.getpid()}")
    directory.mkdir()
    with stopped_by_sigterm():
        found = train(strategy, Path(prepared), directory, *signals)
    np.savez(directory / "found.npz", **found)


if __name__ == "__main__":
    main()
