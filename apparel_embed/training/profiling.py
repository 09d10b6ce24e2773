"""A profile of some steps, for TensorBoard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from absl import logging


class Profiler:
    """Profiles some of a training's steps, what feeds them included.

    To be used in a `with` block, at whose end a profile under way is written.

    Args:
      steps: the first step to profile, counted from 0, and the one to end before; None for none.
      directory: of TensorBoard's files.
      what: name of the training, for messages.
    """

    def __init__(self, steps: tuple[int, int] | None, directory: Path, what: str) -> None:
        self._steps = steps
        self._directory = directory
        self._what = what
        self._running = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Marks a step, counted from 0; before the first one and behind the last nothing is done.

        Args:
          number: of the step that the block computes.
        """
        if self._steps is None or not self._steps[0] <= number < self._steps[1]:
            yield
            return
        if not self._running:
            tf.profiler.experimental.start(str(self._directory))
            self._running = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number + 1 == self._steps[1]:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            tf.profiler.experimental.stop()
            logging.info("%s: profile in %s", self._what, self._directory)
