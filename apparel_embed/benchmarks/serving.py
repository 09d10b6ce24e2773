"""The served student beside its own parts called raw, and beside the specialists it replaces."""

from __future__ import annotations

import dataclasses
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from rich import box
from rich.table import Table

from apparel_embed.common.errors import UserError
from apparel_embed.common.progress import progress_bar
from apparel_embed.common.settings import seed_setting, setting
from apparel_embed.common.text import plain_text
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.models.embedding import (
    ModelConfig,
    build_embedding_model,
    load_embedding_model,
)
from apparel_embed.models.preprocessing import decode_to_square
from apparel_embed.serving.saved_model import ExportConfig, export_saved_model

SERVED, RAW = "student, served", "student, decode + model called raw"
SERVED_ONE, RAW_ONE = "student, served, one picture", "student, raw, one picture"
KNOWN, UNKNOWN = "specialists, verticals known", "specialists, verticals unknown"


@dataclasses.dataclass(frozen=True)
class ServingBenchmark:
    """What to measure."""

    batch_size: int = setting(
        32, "pictures asked for at once, spread evenly over the specialists", 1, 4096
    )
    rounds: int = setting(20, "how often each is measured, in turns", 1)
    specialists: int = setting(8, "specialists to make up", 1, 64, flag="made_up_specialists")
    picture_width: int = setting(
        640, "width of pictures to make up, in pixels; their height is 3/4 of it", 1, 5000
    )
    seed: int = seed_setting("what is made up")


@dataclasses.dataclass(frozen=True, eq=False)
class Subjects:
    """What is measured: models and pictures.

    Attributes:
      student: the student.
      specialists: those it replaces, 1 or more.
      pictures: encoded ones, `batch_size`.
    """

    student: tf.keras.Model
    specialists: Sequence[tf.keras.Model]
    pictures: Sequence[bytes]


def made_up_subjects(config: ServingBenchmark) -> Subjects:
    """Returns models of random weights, as fast as trained ones, and smooth pictures."""
    tf.keras.utils.set_random_seed(config.seed)
    models = [build_embedding_model(ModelConfig()) for _ in range(1 + config.specialists)]
    random = np.random.default_rng(config.seed)
    pictures = []
    for _ in range(config.batch_size):
        few = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        size = (config.picture_width, max(1, config.picture_width * 3 // 4))
        file = io.BytesIO()
        few.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    return Subjects(models[0], models[1:], pictures)


def subjects_of_run(
    dataset: PreparedDataset,
    student: Path,
    specialists: Sequence[Path],
    config: ServingBenchmark,
) -> Subjects:
    """Returns a run's models, and pictures of its test split.

    Args:
      dataset: the prepared dataset.
      student: directory of its model.
      specialists: directories of their models.
      config: what to measure.

    Raises:
      UserError: if there is no picture, or a model cannot be read.
    """
    records = dataset.select(split="test")
    if not len(records):
        raise UserError(f"{dataset.directory}: has no pictures in split test to measure with")
    chosen = records[
        np.arange(config.batch_size) * len(records) // config.batch_size % len(records)
    ]
    models = [load_embedding_model(directory)[0] for directory in (student, *specialists)]
    return Subjects(models[0], models[1:], dataset.read_images(chosen))


def run_serving_benchmark(subjects: Subjects, config: ServingBenchmark) -> dict[str, list[float]]:
    """Measures everything in turns.

    Returns:
      Seconds of each round, by what was measured.
    """
    with tempfile.TemporaryDirectory() as temporary:
        served = [
            _served(model, Path(temporary) / str(number))
            for number, model in enumerate((subjects.student, *subjects.specialists))
        ]
        student, specialists = served[0], served[1:]
        raw = _raw(subjects.student)
        pictures = list(subjects.pictures)
        shares = [pictures[place :: len(specialists)] for place in range(len(specialists))]

        def known() -> None:
            for specialist, share in zip(specialists, shares):
                if share:
                    specialist(share)

        def unknown() -> None:
            for specialist in specialists:
                specialist(pictures)

        calls: dict[str, Callable[[], object]] = {
            SERVED: lambda: student(pictures),
            RAW: lambda: raw(pictures),
            SERVED_ONE: lambda: student(pictures[:1]),
            RAW_ONE: lambda: raw(pictures[:1]),
            KNOWN: known,
            UNKNOWN: unknown,
        }
        for call in calls.values():  # Once to warm up.
            call()
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in progress_bar(range(config.rounds), what="serving", unit="rounds"):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
        return seconds


def summary_of(
    seconds: Mapping[str, Sequence[float]], subjects: Subjects
) -> dict[str, float | int]:
    """Returns the results for machines; ratios are of medians."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    count = len(subjects.pictures)
    return {
        "bytes_vs_raw": median[SERVED] / median[RAW],
        "bytes_vs_raw_one_picture": median[SERVED_ONE] / median[RAW_ONE],
        "student_images_per_second": count / median[SERVED],
        "specialists_images_per_second": count / median[KNOWN],
        "specialists_images_per_second_verticals_unknown": count / median[UNKNOWN],
        "student_milliseconds_one_picture": 1000 * median[SERVED_ONE],
        "specialists": len(subjects.specialists),
        "student_parameters": subjects.student.count_params(),
        "specialists_parameters": sum(one.count_params() for one in subjects.specialists),
        "batch_size": count,
    }


def table_of(seconds: Mapping[str, Sequence[float]], subjects: Subjects) -> str:
    """Returns the results as a table for people."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("what")
    for heading in ("ms, median", "ms, 95 % within", "pictures / s"):
        table.add_column(heading, justify="right")
    for name, values in seconds.items():
        count = 1 if name in (SERVED_ONE, RAW_ONE) else len(subjects.pictures)
        middle = statistics.median(values)
        table.add_row(
            name,
            f"{1000 * middle:,.1f}",
            f"{1000 * float(np.percentile(values, 95)):,.1f}",
            f"{count / middle:,.0f}",
        )
    return plain_text(
        f"Bytes to embeddings of {len(subjects.pictures)} pictures, a student and the "
        f"{len(subjects.specialists)} specialists it replaces, in turns.",
        table,
        "With verticals known each picture goes to its specialist, in smaller batches; with "
        "verticals unknown to all of them.",
        width=120,
    )


def _served(model: tf.keras.Model, directory: Path) -> Callable[[list[bytes]], tf.Tensor]:
    """Returns an exported and loaded model, from encoded pictures to embeddings."""
    export_saved_model(model, directory, ExportConfig(warm_up=False))
    loaded = tf.saved_model.load(str(directory))

    def embed(pictures: list[bytes]) -> tf.Tensor:
        # By the loaded model, which keeps the variables; signatures do not.
        return loaded.signatures["serving_default"](image_bytes=tf.constant(pictures))["embedding"]

    return embed


def _raw(model: tf.keras.Model) -> Callable[[list[bytes]], tf.Tensor]:
    """Returns what a caller writes who has the parts: decode each picture, call the model."""
    size = model.input_shape[1]
    decode = tf.function(
        lambda encoded: decode_to_square(encoded, size), [tf.TensorSpec([], tf.string)]
    )
    embed = tf.function(
        lambda images: model(tf.cast(images, tf.float32), training=False),
        [tf.TensorSpec([None, size, size, 3], tf.uint8)],
    )
    return lambda pictures: embed(tf.stack([decode(one) for one in pictures]))
