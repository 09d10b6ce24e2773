"""Benchmark of the semi-hard loss, relative to TensorFlow Addons' and to a lower bound.

Each implementation is measured in its own process, which runs this module.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from apparel_embed.benchmarks.harness import (
    Measured,
    Rows,
    available_gb,
    measure_modules,
    measure_warm,
    ratio,
)
from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import seed_setting, setting

if TYPE_CHECKING:
    import tensorflow as tf

OURS, ADDONS, FLOOR = "apparel_embed", "tfa", "floor"
IMPLEMENTATIONS = (OURS, ADDONS, FLOOR)
# Bytes that an implementation needs per batch^3, measured with a batch of 512.
_BYTES_PER_CUBE = {ADDONS: 19.0}


@dataclasses.dataclass(frozen=True)
class LossBenchmark:
    """Settings of the benchmark."""

    batch_sizes: Sequence[int] = setting((256, 512, 1024, 4096, 8192), "images per batch", 2, 65536)
    images_per_item: int = setting(4, "images per item in a batch", 1)
    implementations: Sequence[str] = setting(
        IMPLEMENTATIONS,
        "implementation to measure; may be repeated",
        choices=IMPLEMENTATIONS,
        flag="implementation",
    )
    dim: int = setting(64, "length of an embedding", 1, flag="embedding_dim")
    margin: float = setting(0.3, "margin of the loss", 0.0, 2.0)
    rounds: int = setting(3, "how many times each is started, in turns", 1)
    seconds: float = setting(2.0, "seconds for which each is repeated once started", 0.0)
    seed: int = seed_setting("the embeddings")


def measure_losses(config: LossBenchmark) -> Rows:
    """Measures loss and gradient of each implementation at each batch size.

    Returns:
      A row per implementation and batch size: memory above that of the idle process, and time, also
      relative to the lower bound's and to this package's.

    Raises:
      UserError: if a batch is not made of whole items.
    """
    broken = [size for size in config.batch_sizes if size % config.images_per_item]
    if broken:
        raise UserError(
            f"--batch_sizes: {broken[0]} is not a multiple of the {config.images_per_item} images "
            "per item"
        )
    return [row for size in config.batch_sizes for row in _rows_of(size, config)]


def _rows_of(size: int, config: LossBenchmark) -> Rows:
    """Measures each implementation at one batch size."""
    implementations = config.implementations
    reasons = {name: _why_not(name, size) for name in implementations}
    settings = dataclasses.asdict(config)
    tasks = {
        name: {**settings, "implementation": name, "batch_size": size}
        for name, why in reasons.items()
        if not why
    }
    found = measure_modules("losses", tasks, config.rounds)
    found |= {name: Measured(why_not=why) for name, why in reasons.items() if why}
    times = {name: found[name].seconds for name in implementations}
    return [
        {
            "batch_size": size,
            "implementation": name,
            "milliseconds": ratio(times[name], 1e-3),
            "peak_mb": found[name].peak_mb,
            "times_floor": ratio(times[name], times.get(FLOOR)),
            "times_ours": ratio(times[name], times.get(OURS)),
            "why_not": found[name].why_not,
        }
        for name in implementations
    ]


def _why_not(name: str, size: int) -> str:
    """Returns why an implementation cannot be measured at a batch size; "" if it can."""
    from apparel_embed.losses.addons import has_addons  # Imports TensorFlow.

    if name == ADDONS and not has_addons():
        return "TensorFlow Addons is not installed; it runs on Python 3.11 and earlier"
    needed, available = _BYTES_PER_CUBE.get(name, 0.0) * size**3 / 1e9, available_gb()
    if needed <= available:
        return ""
    return f"needs about {needed:,.0f} GB of memory; {available:,.0f} GB are available"


def _step_of(task: dict[str, Any]) -> Callable[[tf.Tensor, tf.Tensor], tuple]:
    """Returns a function from labels and embeddings to a loss and its gradient."""
    import tensorflow as tf

    from apparel_embed.losses.addons import addons_semi_hard_triplet_loss
    from apparel_embed.losses.semi_hard import semi_hard_triplet_loss

    margin, size = task["margin"], task["batch_size"]
    weights = tf.random.stateless_uniform([size, size], [task["seed"], 0], -1.0, 1.0)
    losses: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
        OURS: lambda a, b: semi_hard_triplet_loss(a, b, margin),
        ADDONS: lambda a, b: addons_semi_hard_triplet_loss(a, b, margin, "L2"),
        # The products of all pairs and their gradient, which every loss of a batch needs.
        FLOOR: lambda _, b: tf.matmul(b, b, transpose_b=True),
    }
    loss = losses[task["implementation"]]

    @tf.function
    def step(labels: tf.Tensor, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            value = loss(labels, vectors)
        outer = weights if value.shape.rank == 2 else None
        # Using one of the products is enough to have all computed.
        return tf.reshape(value, [-1])[0], tape.gradient(value, vectors, output_gradients=outer)

    return step


def main() -> None:
    """Prints the measurement of a task as JSON; argv[1] is JSON too."""
    import tensorflow as tf

    task = json.loads(sys.argv[1])
    random = np.random.default_rng(task["seed"])
    vectors = random.normal(size=(task["batch_size"], task["dim"]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = random.permutation(np.arange(task["batch_size"]) // task["images_per_item"])
    step, batch = _step_of(task), (tf.constant(labels), tf.constant(vectors, tf.float32))
    print(json.dumps(measure_warm(lambda: step(*batch)[0].numpy(), task["seconds"])))


if __name__ == "__main__":
    main()
