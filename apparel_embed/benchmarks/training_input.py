"""Benchmark of training input, relative to decoding alone and to steps on one constant batch."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.benchmarks.embedding import write_photographs
from apparel_embed.benchmarks.harness import in_turns, medians
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.sampler import EpochSampler, PKSampler
from apparel_embed.inference.image_store import ImageStore, decoding_threads
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.losses.registry import LossConfig, make_loss
from apparel_embed.losses.regression import make_regression_loss
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import build_embedding_model
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.training.execution import StepRandomness, make_step
from apparel_embed.training.input import augmentation, training_batches
from apparel_embed.training.optimization import make_optimizer
from apparel_embed.training.settings import InputConfig, OptimizationConfig

MODEL = ModelConfig(backbone="efficientnet_lite_b0", image_size=112)
IMAGES = 256
_ITEMS, _IMAGES_PER_ITEM = 8, 4
_BATCH = _ITEMS * _IMAGES_PER_ITEM
_STEPS = 8
_ROUNDS = 5
_CLASSES = 10
_ENDLESS = 10**6


def measure_input(scale: int = 1, seed: int = 0) -> dict[str, float]:
    """Reads training input and, in turns, the work that it is compared with.

    Args:
      scale: number of images in units of 256; 1 or more.
      seed: seed of images, batches and weights.

    Returns:
      `input_vs_ceiling`, throughput of input that decodes every image over that of decoding and
      resizing the same images with the same number of threads; `step_vs_constant_batch`, time of a
      step of triplet training on default input (small datasets are decoded once) over that on one
      constant batch, and `step_decoding_vs_constant_batch`, the same with every image decoded at
      every step, which on a CPU takes cores from the step; `student_pass_vs_classification`, time
      of a student's step over one of training a classifier on the same input; and `input_seconds`
      and `step_seconds` per image.
    """
    tf.keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        manifest = write_photographs(Path(name), IMAGES * scale, random)
        dataset = prepare(PrepareConfig(manifest, Path(name) / "prepared"), processes=1)
        count = len(dataset)
        # Large enough for the encoded images, but not for the decoded ones.
        too_small = (count * MODEL.image_size**2 * 3 - 1) / 2**30
        decoded, undecoded = (
            ImageStore(dataset, np.arange(count), MODEL.image_size, cache_gib)
            for cache_gib in (InputConfig().cache_gib, too_small)
        )
        sampler = PKSampler.from_items(
            np.arange(count) // _IMAGES_PER_ITEM,
            items_per_batch=_ITEMS,
            images_per_item=_IMAGES_PER_ITEM,
            seed=seed,
        )
        passes = count // _BATCH
        read = training_batches(undecoded, sampler, passes)
        encoded = dataset.read_images(range(passes * _BATCH))
        times = _seconds_of(
            {"input": lambda: _consume(read(0)), "ceiling": lambda: _consume(_alone(encoded))}
        )
        return {
            "input_vs_ceiling": times["ceiling"] / times["input"],
            "input_seconds": times["input"] / (passes * _BATCH),
            **_measure_triplets(decoded, undecoded, sampler, seed),
            **_measure_student(decoded, seed, random),
        }


def _seconds_of(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    return medians(in_turns(sides, _ROUNDS, "input"))


def _measure_triplets(
    decoded: ImageStore, undecoded: ImageStore, sampler: PKSampler, seed: int
) -> dict[str, float]:
    step = _training(build_embedding_model(MODEL), make_loss(LossConfig()), seed)
    default, decoding = (
        iter(training_batches(store, sampler, _ENDLESS)(0)) for store in (decoded, undecoded)
    )
    constant = next(default)
    times = _seconds_of(
        {
            "constant": lambda: step(itertools.repeat(constant)),
            "default": lambda: step(default),
            "decoding": lambda: step(decoding),
        }
    )
    return {
        "step_vs_constant_batch": times["default"] / times["constant"],
        "step_decoding_vs_constant_batch": times["decoding"] / times["constant"],
        "step_seconds": times["default"] / (_STEPS * _BATCH),
    }


def _measure_student(store: ImageStore, seed: int, random: np.random.Generator) -> dict[str, float]:
    count = len(store)
    sampler = EpochSampler.over(count, batch_size=_BATCH, seed=seed)
    targets = random.normal(size=(count, MODEL.embedding_dim)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    classes = np.eye(_CLASSES, dtype=np.float32)[random.integers(0, _CLASSES, count)]
    backbone = build_embedding_model(MODEL)
    logits = tf.keras.layers.Dense(_CLASSES)(backbone.output)
    entropy = WholeBatchLoss(
        lambda labels, values: tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(labels, values)
        )
    )

    def side(model: tf.keras.Model, loss: WholeBatchLoss, labels: np.ndarray) -> Callable:
        step = _training(model, loss, seed)
        batches = iter(training_batches(store, sampler, _ENDLESS, targets=labels)(0))
        return lambda: step(batches)

    times = _seconds_of(
        {
            "student": side(build_embedding_model(MODEL), make_regression_loss("mse"), targets),
            "classifier": side(tf.keras.Model(backbone.input, logits), entropy, classes),
        }
    )
    return {"student_pass_vs_classification": times["student"] / times["classifier"]}


def _alone(encoded: list[bytes]) -> tf.data.Dataset:
    """Returns batches of images that are only decoded and resized."""
    with tf.device("CPU"):
        kept = tf.Variable(np.array(encoded, dtype=object), trainable=False, dtype=tf.string)
    return (
        tf.data.Dataset.range(len(encoded))
        .map(
            lambda one: decode_to_square(tf.gather(kept, one), MODEL.image_size),
            num_parallel_calls=decoding_threads(),
        )
        .batch(_BATCH)
        .prefetch(1)
    )


def _consume(dataset: tf.data.Dataset) -> None:
    for _ in dataset:
        pass


def _training(
    model: tf.keras.Model, loss: WholeBatchLoss, seed: int
) -> Callable[[Iterator[tuple]], None]:
    """Returns a function that trains for some steps on the next batches."""
    strategy = tf.distribute.get_strategy()
    optimizer = make_optimizer(OptimizationConfig(steps=_ENDLESS))
    optimizer.build(model.trainable_variables)
    step = make_step(
        model=model,
        optimizer=optimizer,
        loss=loss,
        augment=augmentation(InputConfig(), strategy),
        randomness=StepRandomness(model, seed),
        strategy=strategy,
        jit_compile=False,
    )
    number = tf.constant(1, tf.int64)

    def train(batches: Iterable[tuple]) -> None:
        for batch in itertools.islice(batches, _STEPS):
            value, _ = step(batch, number, tf.constant(0))
            value.numpy()

    return train
