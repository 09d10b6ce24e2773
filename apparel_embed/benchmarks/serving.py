"""Benchmark of the served student, relative to its parts and to the specialists it replaces."""

from __future__ import annotations

import dataclasses
import io
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from apparel_embed.benchmarks.harness import Rows, in_turns
from apparel_embed.benchmarks.serving_config import ServingBenchmark
from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.models.config import ModelConfig
from apparel_embed.models.embedding import build_embedding_model, load_embedding_model
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.serving.exported import ExportConfig
from apparel_embed.serving.saved_model import export_saved_model

SERVED, RAW = "student, served", "student, decode + model called raw"
SERVED_ONE, RAW_ONE = "student, served, one image", "student, raw, one image"
KNOWN, UNKNOWN = "specialists, verticals known", "specialists, verticals unknown"
# A single image takes milliseconds, so it is measured more often.
_ROUNDS_OF_ONE = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Subjects:
    """Models and images to measure.

    Attributes:
      student: the student.
      specialists: the specialists that it replaces, 1 or more.
      images: encoded images of a request, spread evenly over the specialists.
    """

    student: tf.keras.Model
    specialists: Sequence[tf.keras.Model]
    images: Sequence[bytes]


def made_up_subjects(config: ServingBenchmark) -> Subjects:
    """Returns models with random weights, as fast as trained ones, and smooth images."""
    tf.keras.utils.set_random_seed(config.seed)
    models = [build_embedding_model(ModelConfig()) for _ in range(1 + config.specialists)]
    random = np.random.default_rng(config.seed)
    images = []
    for _ in range(config.batch_size):
        few = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        file = io.BytesIO()
        size = (config.image_width, max(1, config.image_width * 3 // 4))
        few.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        images.append(file.getvalue())
    return Subjects(models[0], models[1:], images)


def subjects_of_run(
    dataset: PreparedDataset, student: Path, specialists: Sequence[Path], batch_size: int
) -> Subjects:
    """Returns the models of a run, from their directories, and images of its test split.

    Raises:
      UserError: if there are no images, or a model cannot be read.
    """
    records = dataset.select(split="test")
    if not len(records):
        raise UserError(f"{dataset.directory}: no images of split test to measure with")
    chosen = records[np.arange(batch_size) * len(records) // batch_size % len(records)]
    models = [load_embedding_model(directory)[0] for directory in (student, *specialists)]
    return Subjects(models[0], models[1:], dataset.read_images(chosen))


def measure_serving(subjects: Subjects, rounds: int) -> dict[str, list[float]]:
    """Measures everything in turns; returns the seconds of each round, by name of the measurement.

    Single images take turns separately, like requests for one image at a time: after a batch of the
    other side, the state of the CPU caches would determine the result.
    """
    with tempfile.TemporaryDirectory() as temporary:
        student, *specialists = (
            _served(model, Path(temporary) / str(number))
            for number, model in enumerate((subjects.student, *subjects.specialists))
        )
        raw, images, count = _raw(subjects.student), list(subjects.images), len(specialists)
        shares = [(one, images[place::count]) for place, one in enumerate(specialists)]
        calls: dict[str, Callable[[], object]] = {
            SERVED: lambda: student(images),
            RAW: lambda: raw(images),
            KNOWN: lambda: [specialist(share) for specialist, share in shares if share],
            UNKNOWN: lambda: [specialist(images) for specialist in specialists],
        }
        single: dict[str, Callable[[], object]] = {
            SERVED_ONE: lambda: student(images[:1]),
            RAW_ONE: lambda: raw(images[:1]),
        }
        times = {
            **in_turns(calls, rounds, "serving"),
            **in_turns(single, rounds * _ROUNDS_OF_ONE, "serving, one image"),
        }
    return {name: [wall for wall, _ in some] for name, some in times.items()}


def figures_of(
    seconds: Mapping[str, Sequence[float]], subjects: Subjects
) -> tuple[Rows, dict[str, Any]]:
    """Returns a row of times and images per second per measurement, and ratios of medians."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    count = len(subjects.images)
    rows = [
        {
            "what": name,
            "ms_median": 1000 * median[name],
            "ms_95_percent_within": 1000 * float(np.percentile(values, 95)),
            "images_per_second": (1 if name in (SERVED_ONE, RAW_ONE) else count) / median[name],
        }
        for name, values in seconds.items()
    ]
    return rows, {
        "bytes_vs_raw": median[SERVED] / median[RAW],
        "bytes_vs_raw_one_image": median[SERVED_ONE] / median[RAW_ONE],
        "student_vs_specialists": median[KNOWN] / median[SERVED],
        "student_vs_specialists_verticals_unknown": median[UNKNOWN] / median[SERVED],
        "specialists": len(subjects.specialists),
        "student_parameters": subjects.student.count_params(),
        "specialists_parameters": sum(one.count_params() for one in subjects.specialists),
    }


def _served(model: tf.keras.Model, directory: Path) -> Callable[[list[bytes]], tf.Tensor]:
    """Exports and loads a model; returns its function from encoded images to embeddings."""
    export_saved_model(model, directory, ExportConfig(warm_up=False))
    loaded = tf.saved_model.load(str(directory))

    def embed(images: list[bytes]) -> tf.Tensor:
        # Through the loaded model, which keeps its variables alive; signatures do not.
        return loaded.signatures["serving_default"](image_bytes=tf.constant(images))["embedding"]

    return embed


def _raw(model: tf.keras.Model) -> Callable[[list[bytes]], tf.Tensor]:
    """Returns the same function from the model's parts: decode each image, call the model."""
    size = model.input_shape[1]
    decode = tf.function(
        lambda encoded: decode_to_square(encoded, size), [tf.TensorSpec([], tf.string)]
    )
    embed = tf.function(
        lambda images: model(tf.cast(images, tf.float32), training=False),
        [tf.TensorSpec([None, size, size, 3], tf.uint8)],
    )
    return lambda encoded: embed(tf.stack([decode(one) for one in encoded]))
