"""The training loop of specialists, student and detector."""

from __future__ import annotations

import contextlib
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
from apparel_embed.common.progress import progress_bar
from apparel_embed.inference.embed import Embedder
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.models.computing import layer_precision, synchronise
from apparel_embed.models.embedding import backbone_layers, head_models, unscaled_model
from apparel_embed.training import checkpoints
from apparel_embed.training.checkpoints import Checkpoints
from apparel_embed.training.execution import StepRandomness, make_step
from apparel_embed.training.input import Batches
from apparel_embed.training.optimization import make_optimizer
from apparel_embed.training.settings import ExecutionConfig, LoopConfig, OptimizationConfig
from apparel_embed.training.strategy import lost_process_as_user_error
from apparel_embed.training.summaries import BatchSummaries, Observer, Profiler, write_start
from apparel_embed.training.validation import R_AT_1, Validation

_TENSORBOARD = "tensorboard"


class TrainingLoop:
    """Trains a model on batches that are a pure function of the step, and keeps the best weights.

    With a loss of the whole batch, N replicas with B / N images each give the loss and the
    gradients of one device with B images.

    SIGTERM and SIGINT take effect when the step and any validation in progress are done and a
    checkpoint is written. A signal to one of several processes stops all at the same step. On a
    CPU, an interrupted and resumed training ends with the same bits as an uninterrupted one.

    Args:
      build_model: builds the model; called once, in the strategy's scope.
      save: writes the kept model to a directory.
      batches: batches of inputs, and labels or targets [B, ...].
      loss: maps the replica's (labels or targets, outputs) to the whole batch's scalar.
      validation: how to compare weights; None if impossible, to keep the last ones.
      optimization: the optimiser and number of steps.
      config: how often to validate, log and save.
      strategy: from `make_strategy`.
      directory: the stage's directory, which may contain files of an interrupted training. Each of
        several processes has its own and writes to it, as reading a variable may involve them all.
      what: name shown with the progress bar.
      augment: maps a batch's inputs to images float32 [B, size, size, 3]; by default, the identity.
      execution: how steps are computed.
      summaries: summaries of batches for TensorBoard, or None; they require a model built by
        `build_embedding_model`.
      from_features: whether batches contain pooled features of the model's trunk instead of images;
        the backbone is not trained then.
      keep_start: whether to keep the initial weights if no later ones are as good on validation.

    Attributes:
      model: the model; after `run`, with the kept weights.
      trained: the part of the model that maps the output of `augment` to embeddings.
      batches, augment: as given.

    Raises:
      UserError: if the strategy's replicas do not support `execution`.
    """

    def __init__(
        self,
        *,
        build_model: Callable[[], tf.keras.Model],
        save: Callable[[Path, tf.keras.Model], None],
        batches: Batches,
        loss: WholeBatchLoss,
        validation: Validation | None,
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
    ) -> None:
        execution.check(strategy.num_replicas_in_sync)
        self.batches, self.augment = batches, augment
        self._validation, self._keep_start = validation, keep_start
        self._optimization, self._config, self._execution = optimization, config, execution
        self._strategy = strategy
        self._directory, self._what = directory, what
        self._validate_every = config.validation_interval(optimization.steps)
        self._save_model, self._summaries = save, summaries
        measure = summaries.measure if summaries else None
        unscaled = self._build(build_model, from_features, bool(measure))
        self._embedder = Embedder(self.model)
        self._make_train_step = functools.partial(
            make_step,
            model=self.trained,
            optimizer=self._optimizer,
            loss=loss,
            augment=augment,
            randomness=StepRandomness(self.model, optimization.seed),
            strategy=strategy,
            jit_compile=execution.jit_compile,
        )
        self._observer = Observer(measure, unscaled, augment, strategy) if measure else None
        self._writer = tf.summary.create_noop_writer()
        self._progress = checkpoints.Progress()
        # The first step whose loss or gradient was not finite; 0 if there is none.
        self._failed = tf.Variable(0, dtype=tf.int64, trainable=False)
        # On a CPU the step is done when the call returns, so a check is free; other devices would
        # have to be waited for. A check always precedes saving.
        on_cpu = all(one.device_type == "CPU" for one in tf.config.list_logical_devices())
        self._check_every = 1 if on_cpu else config.log_every
        self._began = 0.0

    def _build(
        self, build_model: Callable[[], tf.keras.Model], from_features: bool, observed: bool
    ) -> tf.keras.Model | None:
        """Creates model and optimiser; returns the model for the observer."""
        execution, replicas = self._execution, self._strategy.num_replicas_in_sync
        with self._strategy.scope():
            with layer_precision(execution.precision):
                self.model = build_model()
            if execution.sync_batch_norm and replicas > 1:
                synchronise(self.model)
            self._optimizer = make_optimizer(
                self._optimization,
                replicas=replicas,
                scale_loss=execution.precision == "float16",
            )
            self.trained, unscaled = self.model, None
            if from_features:
                self.trained, unscaled = head_models(self.model)
            elif observed:
                unscaled = unscaled_model(self.model)
            # Creates all slots at the start, even if the backbone is frozen.
            self._optimizer.build(self.trained.trainable_variables)
        return unscaled

    def run(self) -> dict[str, float | int | None]:
        """Trains to the end, from the last checkpoint if any.

        Returns:
          The kept model's step (0 for the initial weights) and validation metric under the metric's
          name (None without validation), the number of steps done, the last loss, and the duration
          of all steps in seconds, including those before an interruption.

        Raises:
          UserError: if the loss or its gradient is not finite (the message names the step), a
            checkpoint cannot be written, or another process of the training is lost; earlier
            checkpoints are kept.
        """
        kept = Checkpoints(
            self._directory / checkpoints.DIRECTORY,
            model=self.model,
            optimizer=self._optimizer,
            keep=self._config.keep_checkpoints,
            what=self._what,
        )
        self._writer = writer = tf.summary.create_file_writer(str(self._directory / _TENSORBOARD))
        with deferred() as signals, kept, contextlib.closing(writer), writer.as_default():
            self._progress = progress = kept.restore()
            self._began = time.monotonic() - progress.seconds
            logging.info(
                "%s: %s step %d to %d%s",
                self._what,
                "resuming from" if progress.step else "training from",
                progress.step,
                self._optimization.steps,
                f", validated every {self._validate_every}" if self._validation else "",
            )
            with lost_process_as_user_error(self._strategy, self._what):
                self._train(kept, signals)
            if progress.best_step != progress.step:
                kept.restore_best(progress)
            self._save_model(self._directory / "model", self.model)
        return {
            "kept_step": progress.best_step,
            f"validation_{self._metric}": progress.best if self._validation else None,
            "trained_steps": progress.step,
            "last_loss": progress.last_loss,
            "trained_seconds": round(time.monotonic() - self._began, 1),
        }

    def measured_step(self, steps: int) -> float:
        """Returns the mean seconds per step, after a first one; changes the weights.

        Args:
          steps: number of steps to measure, 1 or more.
        """
        batches = iter(self._distributed(0))
        train_step = self._make_step(self._optimization.steps - 1)
        began = 0.0
        for number in range(steps + 1):
            loss, _ = train_step(next(batches), tf.constant(number + 1, tf.int64), tf.constant(0))
            float(loss)  # Waits for the device.
            began = began or time.monotonic()
        return (time.monotonic() - began) / steps

    @property
    def _metric(self) -> str:
        return self._validation.metric if self._validation else R_AT_1

    def _distributed(self, first: int) -> Any:
        """Returns the batches of all replicas from a first step on."""
        return self._strategy.distribute_datasets_from_function(lambda _: self.batches(first))

    def _train(self, kept: Checkpoints, signals: Deferral) -> None:
        """Does the remaining steps."""
        first, last, what = self._progress.step, self._optimization.steps, self._what
        if not first:
            if self._summaries:
                write_start(self._embedder.graph, self._summaries.first_batch())
            if self._keep_start and self._validation:
                self._is_best(0)
                self._save(kept)
        alone = self._strategy.cluster_resolver is None
        train_step = bar = None
        with contextlib.ExitStack() as stack:
            profiler = stack.enter_context(
                Profiler(self._execution.profile_steps, self._directory / _TENSORBOARD, what)
            )
            for step, batch in zip(range(first, last), self._distributed(first)):
                if self._has_stalled():
                    logging.info("%s: validation stopped improving, ended at step %d", what, step)
                    break
                if train_step is None or step == self._optimization.frozen_steps:
                    train_step = self._make_step(step)
                done = step + 1
                with profiler.step(step):
                    stop = tf.constant(int(signals.requested))
                    loss, counts = train_step(batch, tf.constant(done, tf.int64), stop)
                if bar is None:
                    images = int(counts[0])
                    bar = progress_bar(
                        total=last * images, initial=first * images, what=what, unit="images"
                    )
                    stack.callback(bar.close)
                bar.update(images)
                self._progress.step = done
                saves = self._finish_step(batch, loss, bar)
                # A signal may also arrive during validation.
                stops = signals.requested
                if not alone:
                    # Saving takes all processes, so they must decide alike: all check the result
                    # of the step, which they share, at the same steps.
                    stops = done % self._check_every == 0 and int(counts[2]) > 0
                if saves or stops:
                    self._check(loss)
                    self._save(kept)
                kept.check()
                if stops:
                    kept.wait()
                    signals.request()
                    logging.info("%s: stopped at step %d of %d", what, done, last)
                    signals.obey()

    def _finish_step(self, batch: tuple, loss: tf.Tensor, bar: Any) -> bool:
        """Checks, logs and validates if due after a step; returns whether to save."""
        done = self._progress.step
        logs, validates, saves, checks = (
            done % every == 0 or done == self._optimization.steps
            for every in (
                self._config.log_every,
                self._validate_every,
                self._config.checkpoint_every,
                self._check_every,
            )
        )
        if logs or validates or checks:
            self._check(loss)
        if logs:
            self._log(loss, bar)
            if self._observer:
                self._observer.observe(batch, done)
        return (validates and self._is_best(done)) or saves

    def _has_stalled(self) -> bool:
        """Returns whether `patience` validations have passed since the best one."""
        since = self._progress.step - self._progress.peak_step
        patience = self._config.patience
        return bool(patience and self._validation) and since >= patience * self._validate_every

    def _make_step(self, step: int) -> Callable:
        """Traces steps as of `step`: of all weights, or of all except the backbone's."""
        for layer in backbone_layers(self.model):
            layer.trainable = not self._optimization.is_frozen(step)
        step_of_all = self._make_train_step()

        @tf.function
        def train_step(batch: tuple, step: tf.Tensor, stop: tf.Tensor) -> tuple:
            loss, counts = step_of_all(batch, step, stop)
            if_first = tf.where(counts[1] > 0, step, tf.zeros_like(step))
            self._failed.assign(tf.where(self._failed > 0, self._failed, if_first))
            return loss, counts

        return train_step

    def _check(self, loss: tf.Tensor) -> None:
        """Raises a UserError if a step since the last check has failed."""
        step = int(self._failed)
        if step:
            value = float(loss)
            reason = "gradient is not finite" if math.isfinite(value) else f"loss is {value}"
            raise UserError(
                f"{self._what}: the {reason} at step {step}; earlier checkpoints are kept; a "
                "smaller learning rate or a longer warm-up may help"
            )

    def _log(self, loss: tf.Tensor, bar: Any) -> None:
        step, best = self._progress.step, self._progress.best
        value = self._progress.last_loss = float(loss)
        tf.summary.scalar("loss", value, step)
        tf.summary.scalar("learning_rate", self._optimizer.learning_rate, step)
        rate = bar.format_dict["rate"]
        if rate:
            tf.summary.scalar("images_per_second", rate, step)
        shown = {f"best_{self._metric}": f"{best:.3f}"} if best >= 0 else {}
        bar.set_postfix(loss=f"{value:.4f}", **shown, refresh=False)

    def _is_best(self, step: int) -> bool:
        """Validates the weights of a step; returns whether they are the best so far."""
        progress, validation = self._progress, self._validation
        if validation is None:
            is_last = step == self._optimization.steps
            if is_last:
                progress.best_step = step
            return is_last
        with self._writer.as_default(step):
            value = validation.measure(self._embedder)
            preference = validation.prefer(self._embedder)
            tf.summary.scalar(f"validation/{self._metric}", value)
        logging.info("%s: step %d, validation %s %.3f", self._what, step, validation.title, value)
        return progress.validated(value, preference, validation.error)

    def _save(self, kept: Checkpoints) -> None:
        """Writes a checkpoint, and the summaries so far."""
        self._progress.seconds = time.monotonic() - self._began
        tf.summary.flush()
        kept.save(self._progress)
