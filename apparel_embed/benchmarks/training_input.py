"""Training input beside decoding alone, and steps on it beside steps on one constant batch."""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.benchmarks.embedding import write_photographs
from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler, PKSampler
from apparel_embed.inference.image_store import ImageStore, decoding_threads
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.losses.registry import LossConfig, make_loss
from apparel_embed.losses.regression import make_regression_loss
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.training.dropout import StepRandomness
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.input import (
    Batches,
    InputConfig,
    augmentation,
    target_batches,
    triplet_batches,
)
from apparel_embed.training.optimization import OptimizationConfig, make_optimizer
from apparel_embed.training.step import make_step

MODEL = ModelConfig(backbone="efficientnet_lite_b0", image_size=112)
PICTURES = 256
_ITEMS, _PICTURES_PER_ITEM = 8, 4
_STEPS = 8
_ROUNDS = 5
_CLASSES = 10
_ENDLESS = 10**6

Steps = Callable[[Iterable[tuple]], None]


def measure_input(scale: int = 1, seed: int = 0) -> dict[str, float]:
    """Reads training input and, in turns, what it is to keep up with.

    Args:
      scale: 256 pictures times this: 1 or more.
      seed: of pictures, batches and weights.

    Returns:
      `input_vs_ceiling`, throughput of input that decodes every picture anew over that of decoding
      and resizing the same pictures by as many threads; `step_vs_constant_batch`, time of a step of
      triplet training on input as it is by default (small datasets are decoded once) over that on
      one constant batch, and `step_decoding_vs_constant_batch`, the same where every picture is
      decoded anew, which on a CPU takes cores from the step; `student_pass_vs_classification`,
      time of a student's step over one of training a classifier on the same input; and
      `input_seconds` and `step_seconds` of one picture.
    """
    tf.keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        manifest = write_photographs(Path(name), PICTURES * scale, random)
        dataset = prepare(PrepareConfig(manifest, Path(name) / "prepared"), processes=1)
        decoded = _store(dataset, InputConfig().cache_gib)
        anew = _store(dataset, _room_for_encoded(dataset))
        count = len(dataset)
        batch = _ITEMS * _PICTURES_PER_ITEM
        sampler = PKSampler.from_items(
            np.arange(count) // _PICTURES_PER_ITEM,
            items_per_batch=_ITEMS,
            pictures_per_item=_PICTURES_PER_ITEM,
            seed=seed,
        )
        passes = count // batch
        read = triplet_batches(anew, sampler, passes)
        encoded = dataset.read_images(range(passes * batch))
        reading = _in_turns(
            {
                "input": lambda: _consume(read(0)),
                "ceiling": lambda: _consume(_decode_alone(encoded, batch)),
            }
        )
        return {
            "input_vs_ceiling": reading["ceiling"] / reading["input"],
            "input_seconds": reading["input"] / (passes * batch),
            **_measure_triplets(decoded, anew, sampler, seed),
            **_measure_student(decoded, seed, random),
        }


def _measure_triplets(
    decoded: ImageStore, anew: ImageStore, sampler: PKSampler, seed: int
) -> dict[str, float]:
    step = _training(build_embedding_model(MODEL), make_loss(LossConfig()), seed)
    batches = {
        "default": _endless(triplet_batches(decoded, sampler, _ENDLESS)),
        "decoding": _endless(triplet_batches(anew, sampler, _ENDLESS)),
    }
    constant = next(batches["default"])
    times = _in_turns(
        {
            "constant": lambda: step(itertools.repeat(constant, _STEPS)),
            "default": lambda: step(itertools.islice(batches["default"], _STEPS)),
            "decoding": lambda: step(itertools.islice(batches["decoding"], _STEPS)),
        }
    )
    pictures = _STEPS * _ITEMS * _PICTURES_PER_ITEM
    return {
        "step_vs_constant_batch": times["default"] / times["constant"],
        "step_decoding_vs_constant_batch": times["decoding"] / times["constant"],
        "step_seconds": times["default"] / pictures,
    }


def _measure_student(store: ImageStore, seed: int, random: np.random.Generator) -> dict[str, float]:
    count, size = len(store), _ITEMS * _PICTURES_PER_ITEM
    sampler = EpochSampler.over(count, batch_size=size, seed=seed)
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
    sides: dict[str, Callable[[], object]] = {}
    for name, labels, model, loss in (
        ("student", targets, build_embedding_model(MODEL), make_regression_loss("mse")),
        ("classifier", classes, tf.keras.Model(backbone.input, logits), entropy),
    ):
        step = _training(model, loss, seed)
        batches = _endless(target_batches(store, labels, sampler, _ENDLESS))
        sides[name] = functools.partial(_do_steps, step, batches)
    times = _in_turns(sides)
    return {"student_pass_vs_classification": times["student"] / times["classifier"]}


def _do_steps(train: Callable[[Iterator], object], batches: Iterator) -> object:
    return train(itertools.islice(batches, _STEPS))


def _store(dataset: PreparedDataset, cache_gib: float) -> ImageStore:
    return ImageStore(dataset, np.arange(len(dataset)), MODEL.image_size, cache_gib)


def _room_for_encoded(dataset: PreparedDataset) -> float:
    """Returns a cache in GiB that holds the encoded pictures, but not the decoded ones."""
    return (len(dataset) * MODEL.image_size**2 * 3 - 1) / 2**30


def _decode_alone(encoded: list[bytes], batch: int) -> tf.data.Dataset:
    with tf.device("CPU"):
        kept = tf.Variable(np.array(encoded, dtype=object), trainable=False, dtype=tf.string)
    return (
        tf.data.Dataset.range(len(encoded))
        .map(
            lambda one: decode_to_square(tf.gather(kept, one), MODEL.image_size),
            num_parallel_calls=decoding_threads(),
        )
        .batch(batch)
        .prefetch(1)
    )


def _consume(dataset: tf.data.Dataset) -> None:
    for _ in dataset:
        pass


def _endless(batches: Batches) -> Iterator[tuple]:
    return iter(batches(0))


def _training(model: tf.keras.Model, loss: WholeBatchLoss, seed: int) -> Steps:
    """Returns what does a step of training on each of some batches."""
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
        execution=ExecutionConfig(),
    )
    number = tf.constant(1, tf.int64)

    def train(batches: Iterable[tuple]) -> None:
        for batch in batches:
            value, _, _ = step(batch, number)
            value.numpy()

    return train


def _in_turns(sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Returns the median seconds of each side, all of which are called once before."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for work in sides.values():
        work()
    for _ in range(_ROUNDS):
        for name, work in sides.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
