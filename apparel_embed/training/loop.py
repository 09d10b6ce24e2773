"""The training loop that specialists and student share."""

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
    """Trains a model on batches that are a pure function of the step, and keeps the best.

    With a loss of the whole batch, N replicas with a batch of B / N each give the loss and the
    gradients of one device with a batch of B.

    SIGTERM and SIGINT take effect once the step, and any validation under way, is done and a
    checkpoint is written; a signal to one of several processes stops all at the same step. On a
    CPU a training that was interrupted, by whatever, ends with the same bits as one that was not.

    Args:
      build_model: makes the model; called once, in the strategy's scope.
      save: writes the model that is kept into a directory.
      batches: of inputs, and labels or targets [B, ...].
      loss: from the replica's (labels or targets, outputs) to the whole batch's scalar.
      validation: how weights are judged, or None where nothing can be; the last ones are kept then.
      optimization: the optimiser and number of steps.
      config: how often to validate, log and save.
      strategy: from `make_strategy`.
      directory: of the stage, may hold what an interrupted training left. Of several processes that
        train together each has its own and writes to it: reading a variable may take all of them.
      what: shown before the progress bar.
      augment: from a batch's inputs to images float32 [B, size, size, 3]; by default they are that.
      execution: how steps are computed.
      summaries: what TensorBoard shows of batches, or None; that takes a model that was built by
        `build_embedding_model`.
      from_features: whether batches hold pooled features, as the model's trunk makes them, in place
        of images; the backbone is not trained then.
      keep_start: whether the weights that the training starts from are kept where no later ones
        are as good on validation.

    Attributes:
      model: the model; after `run` with the weights that are kept.
      trained: from what `augment` returns to embeddings.
      batches, augment: as given.

    Raises:
      UserError: if steps cannot be computed so on the strategy's replicas.
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
        # Of the first step whose loss or gradient was no finite number; 0 while there is none.
        self._failed = tf.Variable(0, dtype=tf.int64, trainable=False)
        # A CPU has done a step when the call returns, and to look costs nothing; other devices
        # would have to be waited for. Nothing is saved without a look.
        on_cpu = all(one.device_type == "CPU" for one in tf.config.list_logical_devices())
        self._look_every = 1 if on_cpu else config.log_every
        self._began = 0.0

    def _build(
        self, build_model: Callable[[], tf.keras.Model], from_features: bool, observed: bool
    ) -> tf.keras.Model | None:
        """Makes model and optimiser; returns what the observer embeds by."""
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
            # All slots exist from the start, also while the backbone is frozen.
            self._optimizer.build(self.trained.trainable_variables)
        return unscaled

    def run(self) -> dict[str, float | int | None]:
        """Trains to the end, from the last checkpoint if there is one.

        Returns:
          The kept model's step (0 for the weights it started from) and validation metric, by its
          name (None without validation), the steps done, the last loss, and the seconds that all
          steps took, those before an interruption too.

        Raises:
          UserError: if the loss or its gradient is no finite number, naming the step, a checkpoint
            cannot be written, or another process of the training is lost; checkpoints before are
            kept.
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
                "going on from" if progress.step else "training from",
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
        """Returns the seconds that a step takes, the mean of some after a first; moves weights.

        Args:
          steps: how many, 1 or more.
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
        """Returns the batches from a first step on, for all replicas."""
        return self._strategy.distribute_datasets_from_function(lambda _: self.batches(first))

    def _train(self, kept: Checkpoints, signals: Deferral) -> None:
        """Does the steps that are left."""
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
                if self._is_flat():
                    logging.info("%s: validation is flat, ended at step %d", what, step)
                    break
                if train_step is None or step == self._optimization.frozen_steps:
                    train_step = self._make_step(step)
                done = step + 1
                with profiler.step(step):
                    asked = tf.constant(int(signals.requested))
                    loss, counts = train_step(batch, tf.constant(done, tf.int64), asked)
                if bar is None:
                    images = int(counts[0])
                    bar = progress_bar(
                        total=last * images, initial=first * images, what=what, unit="images"
                    )
                    stack.callback(bar.close)
                bar.update(images)
                self._progress.step = done
                saves = self._look_up(batch, loss, bar)
                # A signal may come while weights are validated, too.
                stops = signals.requested
                if not alone:
                    # To save, all processes have to do the same: they stop by what the step has
                    # given all of them, and look at it at the same steps.
                    stops = done % self._look_every == 0 and int(counts[2]) > 0
                if saves or stops:
                    self._check(loss)
                    self._save(kept)
                kept.check()
                if stops:
                    kept.wait()
                    signals.request()
                    logging.info("%s: stopped at step %d of %d", what, done, last)
                    signals.obey()

    def _look_up(self, batch: tuple, loss: tf.Tensor, bar: Any) -> bool:
        """Checks, logs and validates after a step, what is due; returns whether to save."""
        done = self._progress.step
        logs, validates, saves, looks = (
            done % every == 0 or done == self._optimization.steps
            for every in (
                self._config.log_every,
                self._validate_every,
                self._config.checkpoint_every,
                self._look_every,
            )
        )
        if logs or validates or looks:
            self._check(loss)
        if logs:
            self._log(loss, bar)
            if self._observer:
                self._observer.look(batch, done)
        return (validates and self._is_best(done)) or saves

    def _is_flat(self) -> bool:
        """Returns whether too many validations have passed since the best one."""
        since = self._progress.step - self._progress.peak_step
        patience = self._config.patience
        return bool(patience and self._validation) and since >= patience * self._validate_every

    def _make_step(self, step: int) -> Callable:
        """Traces steps as they are from `step` on: of all weights or all but the backbone's."""
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
        """Raises a UserError if a step since the last look has failed."""
        step = int(self._failed)
        if step:
            value = float(loss)
            told = "the gradient is not finite" if math.isfinite(value) else f"the loss is {value}"
            raise UserError(
                f"{self._what}: {told} at step {step}; checkpoints before it are kept; a smaller "
                "learning rate or a longer warm-up may help"
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
        """Has a checkpoint written of all that was done, and what was logged until then."""
        self._progress.seconds = time.monotonic() - self._began
        tf.summary.flush()
        kept.save(self._progress)
