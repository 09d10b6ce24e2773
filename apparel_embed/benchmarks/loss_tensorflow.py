"""Measures one implementation of the semi-hard loss in TensorFlow: run as a process of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from apparel_embed.benchmarks.measure import measure


def main() -> None:
    """Prints the measurement as JSON; argv[1] is JSON too."""
    task = json.loads(sys.argv[1])
    random = np.random.default_rng(task["seed"])
    embeddings = random.normal(size=(task["batch_size"], task["dim"]))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = np.arange(task["batch_size"]) // task["pictures_per_item"]
    step = tf.function(_steps()[task["implementation"]](task))
    batch = (tf.constant(random.permutation(labels)), tf.constant(embeddings, tf.float32))
    print(json.dumps(measure(lambda: step(*batch)[0].numpy(), seconds=task["seconds"])))


def _steps() -> dict[str, Callable[[dict], Callable]]:
    return {"apparel_embed": _ours, "tfa": _addons, "floor": _floor}


def _ours(task: dict) -> Callable:
    from apparel_embed.losses.semi_hard import semi_hard_triplet_loss

    return _with_gradient(
        lambda labels, embeddings: semi_hard_triplet_loss(labels, embeddings, task["margin"])
    )


def _addons(task: dict) -> Callable:
    from apparel_embed.losses.addons import addons_semi_hard_triplet_loss

    return _with_gradient(
        lambda labels, embeddings: addons_semi_hard_triplet_loss(
            labels, embeddings, task["margin"], "L2"
        )
    )


def _floor(task: dict) -> Callable:
    """The products of all pairs, and their gradient: what no loss of a batch can do without."""
    weights = tf.random.stateless_uniform(
        [task["batch_size"], task["batch_size"]], [task["seed"], 0], -1.0, 1.0
    )

    def step(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            products = tf.matmul(embeddings, embeddings, transpose_b=True)
        gradient = tape.gradient(products, embeddings, output_gradients=weights)
        # Of the products a corner is used: enough that they are made.
        return products[0, 0], gradient

    return step


def _with_gradient(loss: Callable) -> Callable:
    def step(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return value, tape.gradient(value, embeddings)

    return step


if __name__ == "__main__":
    main()
