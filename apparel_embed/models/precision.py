"""The precision that layers compute in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Keras' policies by name: in which type layers compute. All keep their weights in float32."""


@contextlib.contextmanager
def layer_precision(name: str) -> Iterator[None]:
    """Lets layers that are made in the block compute in a precision.

    Args:
      name: one of `PRECISIONS`.
    """
    # The only way to reach the layers that a library's backbone makes; set back at the end, so that
    # nothing made later is touched.
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(PRECISIONS[name])
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
