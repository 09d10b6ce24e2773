"""Checkpoints of a training: taken at a step, written in the background and atomically.

A checkpoint is one file, `step-<step>.npz`, with every variable of model and optimiser and the
progress of the training. The random numbers of batches, augmentation and dropout are functions of
seed and step, so no other random state needs saving.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import atomic_path, disk_errors_as_user_errors
from apparel_embed.common.text import one_line

DIRECTORY = "checkpoints"
"""Name of the checkpoints' directory in a stage's directory."""
_PROGRESS = "progress"
_MODEL = "model"
_NAME = re.compile(r"step-(\d+)\.npz")
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, FileNotFoundError)


@dataclasses.dataclass
class Progress:
    """The progress of a training.

    Attributes:
      step: steps done.
      best, best_step, preference: validation metric, step and preference (see `validated`) of the
        best weights so far. Step 0 stands for the initial weights.
      seconds: duration of all steps, including those before an interruption.
      last_loss: the last loss that was logged.
      peak, peak_step: the highest validation metric so far, and its step. `best` may be lower by
        at most the standard error.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    seconds: float = 0.0
    last_loss: float = math.nan
    peak: float = -1.0
    peak_step: int = 0
    preference: float = -math.inf

    def validated(self, value: float, preference: float, error: Callable[[float], float]) -> bool:
        """Records the validation of the weights of `step`; returns whether they are now the best.

        Args:
          value: validation metric; values within an error of the highest count as equal.
          preference: decides among equals. With equal preferences, later weights win: their
            learning rate is lower, and their moving statistics are better.
          error: maps a metric to its standard error.
        """
        if value > self.peak:
            self.peak, self.peak_step = value, self.step

        def is_as_good(metric: float) -> bool:
            return metric >= self.peak - error(metric)

        better = is_as_good(value) and (preference >= self.preference or not is_as_good(self.best))
        if better:
            self.best, self.preference, self.best_step = value, preference, self.step
        return better


def named_variables(root: Mapping[str, Any]) -> dict[str, tf.Variable]:
    """Returns all variables reachable from some objects, by their paths.

    Args:
      root: models, optimisers and other objects that TensorFlow tracks, by name.
    """
    found: dict[str, tf.Variable] = {}
    seen: set[int] = set()
    waiting = collections.deque(root.items())
    while waiting:
        path, node = waiting.popleft()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, tf.Variable):
            found[path] = node
        else:
            children = tf.train.TrackableView.children(node)
            waiting.extend((f"{path}/{name}", child) for name, child in children.items())
    return found


class _Damaged(Exception):
    """A checkpoint is missing or corrupt."""


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one training: the newest ones, and the one with the best weights.

    Use it in a `with` block, at whose end the last checkpoint is completely written.

    Args:
      directory: directory of the checkpoints; created with the first one.
      model: the model being trained.
      optimizer: its optimiser, with all slots.
      keep: how many of the newest to keep, 1 or more. The best is kept in addition.
      what: name of the training, for messages.
    """

    def __init__(
        self,
        directory: Path,
        *,
        model: tf.keras.Model,
        optimizer: tf.keras.optimizers.Optimizer,
        keep: int,
        what: str,
    ) -> None:
        self._directory = directory
        self._variables = named_variables({_MODEL: model, "optimizer": optimizer})
        self._keep = keep
        self._what = what
        # Maps the step of each checkpoint known to be intact to the step of its best weights.
        self._whole: dict[int, int] = {}
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: concurrent.futures.Future[None] | None = None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            self.wait()
        except Exception as late:
            # An error raised in the block came first, and takes precedence.
            if error is None:
                raise
            logging.error("%s", late)
        finally:
            self._executor.shutdown()

    def restore(self) -> Progress:
        """Sets all variables to those of the newest intact checkpoint.

        Logs checkpoints that are damaged, or whose best checkpoint is, and skips them.

        Returns:
          The progress of the training. If there is no checkpoint, that of step 0, with all
          variables unchanged.

        Raises:
          UserError: if an intact checkpoint is of another model or optimiser.
        """
        newest = None
        for step in sorted(self._steps(), reverse=True):
            try:
                progress, arrays = self._read(step)
                if progress.best >= 0 and progress.best_step != step:
                    self._read(progress.best_step)
            except _Damaged as error:
                path = self._path(step)
                logging.warning(
                    "%s: checkpoint %s is damaged (%s); skipping it", self._what, path, error
                )
                continue
            self._whole[step] = progress.best_step
            if newest is None:
                self._assign(arrays)
                newest = progress
        return newest or Progress()

    def restore_best(self, progress: Progress) -> None:
        """Sets the model's variables to those of the best step.

        Raises:
          UserError: if its checkpoint is damaged.
        """
        self.wait()
        try:
            _, arrays = self._read(progress.best_step)
        except _Damaged as error:
            raise UserError(
                f"{self._path(progress.best_step)}: the best weights of {self._what} cannot be "
                f"read ({error}); run the same command again to resume from an earlier checkpoint"
            ) from error
        self._assign({n: a for n, a in arrays.items() if n.startswith(f"{_MODEL}/")})

    def save(self, progress: Progress) -> None:
        """Copies all variables, and writes them as a checkpoint in the background.

        Returns when the variables are copied. First waits until the previous one is written.

        Raises:
          UserError: if the previous checkpoint could not be written.
        """
        arrays = {name: variable.numpy() for name, variable in self._variables.items()}
        self.wait()
        self._pending = self._executor.submit(self._write, dataclasses.replace(progress), arrays)

    def wait(self) -> None:
        """Waits until everything is written.

        Raises:
          UserError: if a checkpoint could not be written, or contains NaN or infinity; earlier
            ones are kept.
        """
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def check(self) -> None:
        """Raises the error of a write that has already failed, without waiting."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def _steps(self) -> list[int]:
        names = (_NAME.fullmatch(path.name) for path in self._directory.glob("*"))
        return [int(name[1]) for name in names if name]

    def _path(self, step: int) -> Path:
        return self._directory / f"step-{step:08d}.npz"

    def _read(self, step: int) -> tuple[Progress, dict[str, np.ndarray]]:
        """Reads a checkpoint; the checksums in the file reveal damage."""
        try:
            with np.load(self._path(step)) as file:
                arrays = {name: file[name] for name in file.files}
            progress = Progress(**json.loads(str(arrays.pop(_PROGRESS))))
        except _DAMAGE as error:
            raise _Damaged(one_line(error)) from error
        found = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        known = {
            name: (np.dtype(variable.dtype.as_numpy_dtype), tuple(variable.shape))
            for name, variable in self._variables.items()
        }
        if found != known:
            differ = min(n for n in {*found, *known} if found.get(n) != known.get(n))
            raise UserError(
                f"{self._path(step)}: written by another release: expected {differ} to be "
                f"{known.get(differ)}, got {found.get(differ)}; delete {self._directory} to train "
                f"{self._what} from the start"
            )
        return progress, arrays

    def _assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self._variables[name].assign(array)

    def _write(self, progress: Progress, arrays: Mapping[str, np.ndarray]) -> None:
        path = self._path(progress.step)
        for name, array in arrays.items():
            if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                raise UserError(
                    f"{self._what}: {name} contains values that are not finite at step "
                    f"{progress.step}; {path.name} is not written, earlier checkpoints are kept"
                )
        with disk_errors_as_user_errors(path):
            with atomic_path(path) as temporary:
                encoded = json.dumps(dataclasses.asdict(progress))
                np.savez(temporary, **arrays, **{_PROGRESS: encoded})
            self._whole[progress.step] = progress.best_step
            newest = sorted(self._whole)[-self._keep :]
            needed = {*newest, *(self._whole[step] for step in newest)}
            self._whole = {step: best for step, best in self._whole.items() if step in needed}
            for step in set(self._steps()) - needed:
                self._path(step).unlink()
