"""The training loop that specialists and student share."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.common.interruption import Deferral, deferred
from apparel_embed.common.progress import Pace, progress_bar
from apparel_embed.common.settings import setting
from apparel_embed.inference.embed import Embedder
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.models.computing import layer_precision, synchronise
from apparel_embed.models.embedding import (
    ModelConfig,
    backbone_layers,
    head_models,
    save_embedding_model,
    unscaled_model,
)
from apparel_embed.training import checkpoints
from apparel_embed.training.checkpoints import Checkpoints
from apparel_embed.training.dropout import StepRandomness
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.optimization import OptimizationConfig, make_optimizer
from apparel_embed.training.profiling import Profiler
from apparel_embed.training.step import make_step
from apparel_embed.training.summaries import BatchSummaries, Observer

_VALIDATIONS = 10


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How often the loop looks up from its work, in steps."""

    validate_every: int = setting(
        0,
        "steps between validations, of which the best one's weights are kept; 0 for ten in a "
        "training",
        0,
    )
    checkpoint_every: int = setting(
        100, "steps between checkpoints that an interrupted training goes on from", 1, seldom=True
    )
    log_every: int = setting(
        10,
        "steps between TensorBoard's numbers and histograms, each a forward pass more",
        1,
        seldom=True,
    )
    keep_checkpoints: int = setting(
        2,
        "newest checkpoints that a training keeps until it is finished, beside that of the best "
        "weights",
        1,
        seldom=True,
    )
    patience: int = setting(
        0,
        "validations without a better one after which a training ends; 0 for never",
        0,
        seldom=True,
    )

    def validation_interval(self, steps: int) -> int:
        """Returns the steps between validations of a training of so many steps."""
        return self.validate_every or max(1, steps // _VALIDATIONS)


class TrainingLoop:
    """Trains a model on batches that are a pure function of the step, and keeps the best.

    With a loss of the whole batch, N replicas with a batch of B / N each give the loss and the
    gradients of one device with a batch of B.

    SIGTERM and SIGINT wait until the step, and a validation under way, are done and a checkpoint is
    written. On a CPU a training that was interrupted, by whatever, ends with the same bits as one
    that was not.

    Args:
      build_model: makes the model; called once, in the strategy's scope.
      model_config: written beside the weights.
      batches: from the first step to a dataset of (inputs, labels or targets [B, ...]), of each
        step one element for each replica of this process.
      loss: from the replica's (labels or targets, embeddings) to the whole batch's scalar.
      validate: from an embedder to R@1, or None where nothing can be validated; the last weights
        are kept then. What it writes for TensorBoard is of the step that is validated.
      optimization: the optimiser and number of steps.
      config: how often to validate, log and save.
      strategy: from `make_strategy`.
      directory: of the stage, may hold what an interrupted training left. Of several processes that
        train together each has its own, for to read a variable may be common work: all write.
      what: shown before the progress bar.
      augment: from a batch's inputs to images float32 [B, size, size, 3]; by default they are that.
      execution: how steps are computed.
      summaries: what TensorBoard is told of batches, with `log_every`; None for nothing. That takes
        a model built by `build_embedding_model`.
      from_features: whether batches hold pooled features, as the model's trunk makes them, in place
        of images; the backbone is not trained then.
      keep_start: whether the weights that the training starts from are kept where no later ones
        are as good on validation.
      error: from a validation metric to its standard error, within which later weights are as good
        as the best: of few queries the highest of many metrics is mostly luck (the rule of one
        standard error, Breiman et al. 1984, "Classification and Regression Trees").
      prefer: from an embedder to what decides among weights that are as good on validation, the
        higher the better; by default the later are kept.

    Raises:
      UserError: if steps cannot be computed so on the strategy's replicas.
    """

    def __init__(
        self,
        *,
        build_model: Callable[[], tf.keras.Model],
        model_config: ModelConfig,
        batches: Callable[[int], tf.data.Dataset],
        loss: WholeBatchLoss,
        validate: Callable[[Embedder], float] | None,
        optimization: OptimizationConfig,
        config: LoopConfig,
        strategy: tf.distribute.Strategy,
        directory: Path,
        what: str,
        augment: Callable[[Any], tf.Tensor] = tf.identity,
        execution: ExecutionConfig = ExecutionConfig(),
        summaries: BatchSummaries | None = None,
        from_features: bool = False,
        keep_start: bool = False,
        error: Callable[[float], float] = lambda _: 0.0,
        prefer: Callable[[Embedder], float] = lambda _: 0.0,
    ) -> None:
        replicas = strategy.num_replicas_in_sync
        execution.check(replicas)
        self._batches = batches
        self._validate = validate
        self._optimization = optimization
        self._config = config
        self._strategy = strategy
        self._directory = directory
        self._what = what
        self._keep_start = keep_start
        self._error = error
        self._prefer = prefer
        self._validate_every = config.validation_interval(optimization.steps)
        self._model_config = model_config
        with strategy.scope():
            with layer_precision(execution.precision):
                self.model = build_model()
            if execution.sync_batch_norm and replicas > 1:
                synchronise(self.model)
            self._optimizer = make_optimizer(
                optimization, replicas=replicas, scale_loss=execution.precision == "float16"
            )
            self.trained, unscaled = self.model, None
            if from_features:
                self.trained, unscaled = head_models(self.model)
            elif summaries:
                unscaled = unscaled_model(self.model)
            # All slots exist from the start, also while the backbone is frozen.
            self._optimizer.build(self.trained.trainable_variables)
        self._embedder = Embedder(self.model)
        self._make_train_step = functools.partial(
            make_step,
            model=self.trained,
            optimizer=self._optimizer,
            loss=loss,
            augment=augment,
            randomness=StepRandomness(self.model, optimization.seed),
            strategy=strategy,
            execution=execution,
        )
        self._observer = Observer(summaries, unscaled, augment, strategy) if summaries else None
        self._writer = tf.summary.create_noop_writer()
        self._profile_steps = execution.profile_steps
        # To save, all processes that train together have to do the same: one's signal is no reason.
        self._alone = strategy.cluster_resolver is None
        self._progress = checkpoints.Progress()
        # Of the first step whose loss or gradient was no finite number; 0 while there is none.
        self._failed = tf.Variable(0, dtype=tf.int64, trainable=False)
        # A CPU has done a step when the call returns, and to look costs nothing; other devices
        # would have to be waited for. Nothing is saved without a look.
        on_cpu = all(one.device_type == "CPU" for one in tf.config.list_logical_devices())
        self._look_every = 1 if on_cpu else config.log_every
        self._began = 0.0

    def run(self) -> dict[str, float | int | None]:
        """Trains to the end, from the last checkpoint if there is one.

        Returns:
          The kept model's step (0 for the weights it started from) and validation R@1 (None without
          validation), the steps done, the last loss, and the seconds that all steps took, those
          before an interruption too.

        Raises:
          UserError: if the loss or its gradient is no finite number, naming the step, or a
            checkpoint cannot be written; those before are kept.
        """
        kept = Checkpoints(
            self._directory / checkpoints.DIRECTORY,
            model=self.model,
            optimizer=self._optimizer,
            keep=self._config.keep_checkpoints,
            what=self._what,
        )
        writer = tf.summary.create_file_writer(str(self._directory / "tensorboard"))
        self._writer = writer
        with deferred() as signals, kept, contextlib.closing(writer), writer.as_default():
            self._progress = kept.restore()
            self._began = time.monotonic() - self._progress.seconds
            logging.info(
                "%s: %s step %d to %d%s",
                self._what,
                "going on from" if self._progress.step else "training from",
                self._progress.step,
                self._optimization.steps,
                f", validated every {self._validate_every}" if self._validate else "",
            )
            self._train(kept, signals)
            self._finish(kept)
        return {
            "kept_step": self._progress.best_step,
            "validation_r_at_1": self._progress.best if self._validate else None,
            "trained_steps": self._progress.step,
            "last_loss": self._progress.last_loss,
            "trained_seconds": round(time.monotonic() - self._began, 1),
        }

    def measured_step(self, steps: int) -> float:
        """Returns the seconds that a step takes, the mean of some after a first; moves weights.

        Args:
          steps: how many, 1 or more.
        """
        batches = iter(
            self._strategy.distribute_datasets_from_function(lambda context: self._batches(0))
        )
        train_step = self._make_step(self._optimization.is_frozen(self._optimization.steps - 1))
        began = 0.0
        for number in range(steps + 1):
            loss, _ = train_step(next(batches), tf.constant(number + 1, tf.int64))
            float(loss)  # Waits for the device.
            began = began or time.monotonic()
        return (time.monotonic() - began) / steps

    def _train(self, kept: Checkpoints, signals: Deferral) -> None:
        """Does the steps that are left."""
        first, last = self._progress.step, self._optimization.steps
        config = self._config
        dataset = self._strategy.distribute_datasets_from_function(
            lambda context: self._batches(first)
        )
        profiler = Profiler(self._profile_steps, self._directory / "tensorboard", self._what)
        train_step = None
        if self._observer and not first:
            self._observer.begin(self._embedder.graph)
        if self._keep_start and self._validate and not first:
            self._validated(0)
            self._save(kept)
        with contextlib.ExitStack() as stack, profiler:
            bar = None
            pictures = 0
            # Of the first step, which is traced and compiled, nothing is told.
            pace = Pace(first + 1, last)
            for step, batch in zip(range(first, last), dataset):
                if self._is_flat():
                    logging.info("%s: validation is flat, ended at step %d", self._what, step)
                    break
                if train_step is None or step == self._optimization.frozen_steps:
                    train_step = self._make_step(self._optimization.is_frozen(step))
                done = step + 1
                with profiler.step(step):
                    loss, size = train_step(batch, tf.constant(done, tf.int64))
                told = pace.after(done)
                if told:
                    logging.info("%s: %s", self._what, told)
                if bar is None:
                    pictures = int(size)
                    bar = progress_bar(
                        total=last * pictures,
                        initial=first * pictures,
                        what=self._what,
                        unit="images",
                    )
                    stack.callback(bar.close)
                bar.update(pictures)
                self._progress.step = done
                logs = done % config.log_every == 0 or done == last
                validates = done % self._validate_every == 0 or done == last
                saves = done % config.checkpoint_every == 0 or done == last
                if logs or validates or saves or done % self._look_every == 0:
                    self._check(loss)
                if logs:
                    self._log(done, loss, bar)
                    if self._observer:
                        self._observer.look(batch, done)
                if validates and self._validated(done):
                    saves = True
                if saves or (signals.requested and self._alone):
                    self._save(kept)
                kept.check()
                if signals.requested:
                    kept.wait()
                    logging.info("%s: stopped at step %d of %d", self._what, done, last)
                    signals.obey()

    def _is_flat(self) -> bool:
        """Returns whether too many validations have passed since the best one."""
        since = self._progress.step - self._progress.peak_step
        patience = self._config.patience
        return bool(patience and self._validate) and since >= patience * self._validate_every

    def _make_step(self, frozen: bool) -> Callable:
        """Traces one step, of all weights or of all but the backbone's."""
        for layer in backbone_layers(self.model):
            layer.trainable = not frozen
        step_of_all = self._make_train_step()

        @tf.function
        def train_step(batch: tuple, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            loss, size, failures = step_of_all(batch, step)
            if_first = tf.where(failures > 0, step, tf.zeros_like(step))
            self._failed.assign(tf.where(self._failed > 0, self._failed, if_first))
            return loss, size

        return train_step

    def _check(self, loss: tf.Tensor) -> None:
        """Raises a UserError if a step since the last look has failed."""
        step = int(self._failed)
        if step:
            value = float(loss)
            told = "the gradient is not finite" if math.isfinite(value) else f"the loss is {value}"
            raise UserError(
                f"{self._what}: {told} at step {step}; checkpoints before it are kept; a smaller "
                "learning rate or a longer warm-up may help"
            )

    def _log(self, step: int, loss: tf.Tensor, bar) -> None:
        value = self._progress.last_loss = float(loss)
        tf.summary.scalar("loss", value, step)
        tf.summary.scalar("learning_rate", self._optimizer.learning_rate, step)
        rate = bar.format_dict["rate"]
        if rate:
            tf.summary.scalar("images_per_second", rate, step)
        best = self._progress.best
        shown = {"best_r_at_1": f"{best:.3f}"} if best >= 0 else {}
        bar.set_postfix(loss=f"{value:.4f}", **shown, refresh=False)

    def _validated(self, step: int) -> bool:
        """Validates; returns whether these weights are the best so far (or nothing can tell)."""
        progress = self._progress
        if self._validate is None:
            better = step == self._optimization.steps
        else:
            with self._writer.as_default(step):
                value = self._validate(self._embedder)
                preference = self._prefer(self._embedder)
                tf.summary.scalar("validation/r_at_1", value)
            logging.info("%s: step %d, validation R@1 %.3f", self._what, step, value)
            if value > progress.peak:
                progress.peak, progress.peak_step = value, step
            # Of equals the later: its learning rate is lower, its moving statistics are better.
            better = self._is_as_good(value) and (
                preference >= progress.preference or not self._is_as_good(progress.best)
            )
            if better:
                progress.best, progress.preference = value, preference
        if better:
            progress.best_step = step
        return better

    def _is_as_good(self, value: float) -> bool:
        """Returns whether a validation metric is within an error of the highest."""
        return value >= self._progress.peak - self._error(value)

    def _save(self, kept: Checkpoints) -> None:
        """Has a checkpoint written of all that was done, and what was logged until then."""
        self._progress.seconds = time.monotonic() - self._began
        tf.summary.flush()
        kept.save(self._progress)

    def _finish(self, kept: Checkpoints) -> None:
        """Writes the model with the best weights."""
        if self._progress.best_step != self._progress.step:
            kept.restore_best(self._progress)
        save_embedding_model(self._directory / "model", self.model, self._model_config)
