"""Training input beside decoding alone, and steps it feeds beside steps that need not wait."""

from __future__ import annotations

import csv
import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from apparel_embed.data.prepare import prepare
from apparel_embed.data.prepare_plan import PrepareConfig
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler, PKSampler
from apparel_embed.inference.image_store import ImageStore, decoding_threads
from apparel_embed.losses.registry import LossConfig, make_loss
from apparel_embed.losses.regression import make_regression_loss
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.training.dropout import StepRandomness
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.input import (
    InputConfig,
    augmentation,
    target_batches,
    triplet_batches,
)
from apparel_embed.training.optimization import OptimizationConfig, make_optimizer
from apparel_embed.training.step import make_step
from apparel_embed.training.strategy import make_strategy, start_afresh

MODEL = ModelConfig(image_size=112)
_PICTURES = 1024
# Of a photograph as a shop has it, in pixels; prepared it has 192 x 256.
_WIDTH, _HEIGHT = 600, 800
_DIFFERENT = 64
_PER_ITEM = 4
_BATCH = 64
_ROUNDS = 5
# Of each side in each round: batches of input, and steps.
_BATCHES = 16
_STEPS = 4
# Let pass before a side is timed: what waited ready is gone then.
_AHEAD = 5
_ENDLESS = 10**9


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What is measured on.

    Attributes:
      dataset: some different pictures, prepared.
      records: int64 [n] record numbers, each as often as is needed.
      seed: of everything drawn.
    """

    dataset: PreparedDataset
    records: np.ndarray
    seed: int

    @property
    def items(self) -> np.ndarray:
        """Item of each of the n pictures."""
        return np.arange(len(self.records)) // _PER_ITEM

    def store(self, cache_gib: float) -> ImageStore:
        """Returns a store of the n pictures."""
        return ImageStore(self.dataset, self.records, MODEL.image_size, cache_gib)

    @property
    def gib_encoded(self) -> float:
        """Memory that holds the n pictures encoded, but not decoded, in GiB."""
        return 0.9 * len(self.records) * MODEL.image_size**2 * 3 / 2**30


def measure_input(scale: int = 1, seed: int = 0) -> dict[str, float]:
    """Measures training input and steps, each side in turns with what it is compared to.

    Both sides of a ratio do the same number of pictures, in one process; ratios are of medians.

    Args:
      scale: 1,024 pictures times this: 1 or more.
      seed: of pictures, weights and batches.

    Returns:
      - `input_vs_ceiling`: throughput of input that decodes each picture when it is needed, over
        that of as many threads that decode and fit the same pictures and do nothing else;
        `input_cpu_vs_ceiling`, the same by time of the processor, which other programs disturb
        less; `input_read_vs_ceiling`, where pictures are read from the dataset each time; and
        `input_cached_vs_ceiling`, where they are kept decoded.
      - `step_vs_constant_batch`: time of a triplet training's step with pictures kept decoded, the
        default where they fit, over that of the same step on one constant batch; and
        `step_decoding_vs_constant_batch`, where each picture is decoded when it is needed.
      - `student_pass_vs_classification`: time of a student's pass over the pictures, over that of
        plain classification training of the same.
      - `input_seconds`, `ceiling_seconds`, `step_seconds`, of a picture; and `start_seconds`, from
        nothing to the first batch with all pictures decoded into memory.
    """
    start_afresh(seed)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        manifest = write_photographs(directory, np.random.default_rng(seed))
        dataset = prepare(PrepareConfig(manifest, directory / "prepared"), processes=1)
        records = np.arange(_PICTURES * scale, dtype=np.int64) % _DIFFERENT
        pictures = Pictures(dataset, records, seed)
        begin = time.perf_counter()
        decoded = pictures.store(np.inf)
        cached = _triplets(decoded, pictures)
        next(cached)
        started = time.perf_counter() - begin
        return {
            **_input_ratios(pictures, cached),
            **_step_ratios(pictures, cached),
            **_student_ratio(pictures, decoded),
            "start_seconds": started,
        }


def write_photographs(directory: Path, random: np.random.Generator) -> Path:
    """Writes some pictures with the detail of photographs, and a manifest; returns its path."""
    for number in range(_DIFFERENT):
        coarse = random.integers(0, 256, (_HEIGHT // 20, _WIDTH // 20, 3), np.uint8)
        smooth = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        grain = random.normal(0, 4, (_HEIGHT, _WIDTH, 3))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"{number}.jpg", quality=85)
    manifest = directory / "manifest.csv"
    with open(manifest, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "item_id", "vertical"])
        writer.writerows([f"{number}.jpg", number, "dress"] for number in range(_DIFFERENT))
    return manifest


def _input_ratios(pictures: Pictures, cached: Iterator[Any]) -> dict[str, float]:
    sides = {
        "ceiling": _ceiling(pictures.dataset),
        "input": _triplets(pictures.store(pictures.gib_encoded), pictures),
        "input_read": _triplets(pictures.store(0.0), pictures),
        "input_cached": cached,
    }
    found = _in_turns({name: lambda it=it: next(it) for name, it in sides.items()}, _BATCHES)
    wall = {name: seconds for name, (seconds, _) in found.items()}
    cpu = {name: seconds for name, (_, seconds) in found.items()}
    return {
        "input_vs_ceiling": wall["ceiling"] / wall["input"],
        "input_cpu_vs_ceiling": cpu["ceiling"] / cpu["input"],
        "input_read_vs_ceiling": wall["ceiling"] / wall["input_read"],
        "input_cached_vs_ceiling": wall["ceiling"] / wall["input_cached"],
        "input_seconds": wall["input"] / _BATCH,
        "ceiling_seconds": wall["ceiling"] / _BATCH,
    }


def _step_ratios(pictures: Pictures, cached: Iterator[Any]) -> dict[str, float]:
    model = build_embedding_model(MODEL)
    step = _stepper(model, make_loss(LossConfig()), pictures.seed)
    decoding = _triplets(pictures.store(pictures.gib_encoded), pictures)
    batch = next(cached)
    found = _in_turns(
        {
            "constant": lambda: step(batch),
            "cached": lambda: step(next(cached)),
            "decoding": lambda: step(next(decoding)),
        },
        _STEPS,
    )
    wall = {name: seconds for name, (seconds, _) in found.items()}
    return {
        "step_vs_constant_batch": wall["cached"] / wall["constant"],
        "step_decoding_vs_constant_batch": wall["decoding"] / wall["constant"],
        "step_seconds": wall["cached"] / _BATCH,
    }


def _student_ratio(pictures: Pictures, store: ImageStore) -> dict[str, float]:
    """Returns the ratio of steps: both take as many of them for a pass."""
    count = len(pictures.records)
    sampler = EpochSampler.over(count, batch_size=_BATCH, seed=pictures.seed)
    random = np.random.default_rng(pictures.seed)
    targets = random.normal(size=(count, MODEL.embedding_dim)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    classes = pictures.items[:, np.newaxis].astype(np.float32)
    student = build_embedding_model(MODEL)
    trunk = build_embedding_model(MODEL)
    head = tf.keras.layers.Dense(int(classes.max()) + 1)
    classifier = tf.keras.Model(trunk.input, head(trunk.get_layer("pooling").output))
    entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def side(table: np.ndarray, model: tf.keras.Model, loss: Callable) -> Callable[[], Any]:
        batches = iter(target_batches(store, table, sampler, _ENDLESS)(0))
        step = _stepper(model, loss, pictures.seed)
        return lambda: step(next(batches))

    found = _in_turns(
        {
            "student": side(targets, student, make_regression_loss("mse")),
            "classification": side(classes, classifier, entropy),
        },
        _STEPS,
    )
    ratio = found["student"][0] / found["classification"][0]
    return {"student_pass_vs_classification": ratio}


def _ceiling(dataset: PreparedDataset) -> Iterator[tf.Tensor]:
    """Yields batches that all threads decode and fit; nothing else is done to them."""
    encoded = tf.constant(np.array(dataset.read_images(range(len(dataset))), dtype=object))
    size = MODEL.image_size
    decode = functools.partial(
        tf.map_fn,
        lambda one: decode_to_square(one, size),
        fn_output_signature=tf.TensorSpec((size, size, 3), tf.uint8),
    )
    batches = tf.data.Dataset.from_tensor_slices(encoded).repeat().batch(_BATCH)
    return iter(batches.map(decode, num_parallel_calls=decoding_threads()).prefetch(2))


def _triplets(store: ImageStore, pictures: Pictures) -> Iterator[Any]:
    sampler = PKSampler.from_items(
        pictures.items,
        items_per_batch=_BATCH // _PER_ITEM,
        pictures_per_item=_PER_ITEM,
        seed=pictures.seed,
    )
    return iter(triplet_batches(store, sampler, _ENDLESS)(0))


def _stepper(model: tf.keras.Model, loss: Callable, seed: int) -> Callable[[tuple], None]:
    """Returns a function that does a training step on a batch, and waits for its end."""
    optimizer = make_optimizer(OptimizationConfig(steps=_ENDLESS, learning_rate=1e-3))
    optimizer.build(model.trainable_variables)
    strategy = make_strategy("one")
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
    return lambda batch: float(step(batch, number)[0])


def _in_turns(sides: dict[str, Callable[[], object]], count: int) -> dict[str, tuple[float, float]]:
    """Times calls of each side, in turns, as machines have moods.

    Returns:
      By side the medians, over the rounds, of a call's seconds: of the clock, and of the processor.
    """
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(_ROUNDS):
        for name, call in sides.items():
            for _ in range(_AHEAD):
                call()
            begin = time.perf_counter(), time.process_time()
            for _ in range(count):
                call()
            end = time.perf_counter(), time.process_time()
            rounds[name].append(((end[0] - begin[0]) / count, (end[1] - begin[1]) / count))
    return {
        name: tuple(statistics.median(one) for one in zip(*found)) for name, found in rounds.items()
    }
