"""Batches shared by the tests of losses."""

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

BATCH_SIZES = (2, 5, 12, 17, 33)
"""Only a few, as the semi-hard loss is compiled for each."""

TIED = ("repeated", "grid")
"""Kinds with equal distances, which are equal on every CPU except for the angular distance."""

UNTIED = ("normal", "unit", "clusters")


def value_and_gradient(loss, labels, embeddings):
    """Returns the loss and its gradient with respect to the embeddings, as numpy."""
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings)
    return value.numpy(), tape.gradient(value, embeddings).numpy()


def make_batch(seed, size, items, dim, kind):
    """Returns labels int64 [size] of up to `items` items, and float32 embeddings [size, dim]."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, items, size)
    embeddings = random.normal(size=(size, dim))
    if kind == "clusters":
        embeddings = random.normal(size=(items, dim))[labels] + 0.5 * embeddings
    if kind == "repeated":
        # Eighths, as with grids: products need no rounding, so they are equal on every CPU.
        embeddings = np.round(8 * embeddings[random.integers(0, size, size)]) / 8
    if kind == "grid":
        embeddings = np.round(embeddings)
    if kind in ("unit", "clusters"):
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return labels, embeddings.astype(np.float32)


def batches(kinds=(*UNTIED, *TIED), sizes=BATCH_SIZES, dims=(2, 7)):
    """Returns a strategy of batches: few or many items, on a sphere or not, with ties or not."""
    return st.builds(
        make_batch,
        seed=st.integers(0, 2**31 - 1),
        size=st.sampled_from(sizes),
        items=st.sampled_from([1, 2, 3, 8, 1000]),
        dim=st.sampled_from(dims),
        kind=st.sampled_from(kinds),
    )
