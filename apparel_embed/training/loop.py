"""The training loop that specialists and student share."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from absl import logging

from apparel_embed.errors import UserError
from apparel_embed.inference.embed import Embedder
from apparel_embed.losses.keras import WholeBatchLoss
from apparel_embed.models.backbones import without_keras_warnings
from apparel_embed.models.embedding import ModelConfig, save_embedding_model
from apparel_embed.progress import progress_bar
from apparel_embed.training.optimization import OptimizationConfig, make_optimizer


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """How often the loop looks up from its work, in steps.

    Attributes:
      validate_every: between validations; the best of them is kept.
      checkpoint_every: between checkpoints that an interrupted training goes on from.
      log_every: between TensorBoard scalars.
    """

    validate_every: int = 100
    checkpoint_every: int = 100
    log_every: int = 10


class TrainingLoop:
    """Trains a model on batches that are a pure function of the step, and keeps the best.

    With a loss of the whole batch, N replicas with a batch of B / N each give the loss and the
    gradients of one device with a batch of B.

    Args:
      build_model: makes the model; called once, in the strategy's scope.
      model_config: written beside the weights.
      batches: from the first step to a dataset of (images float32 [B, size, size, 3], labels or
        targets [B, ...]), one element a step.
      loss: from the replica's (labels or targets, embeddings) to the whole batch's scalar.
      validate: from an embedder to R@1, or None where nothing can be validated; the last weights
        are kept then.
      optimization: the optimiser and number of steps.
      config: how often to validate, log and save.
      strategy: from `make_strategy`.
      directory: of the stage, may hold what an interrupted training left.
      what: shown before the progress bar.
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
    ) -> None:
        self._batches = batches
        self._loss = loss
        self._validate = validate
        self._optimization = optimization
        self._config = config
        self._strategy = strategy
        self._directory = directory
        self._what = what
        self._model_config = model_config
        with strategy.scope():
            self.model = build_model()
            self._optimizer = make_optimizer(optimization)
            # All slots exist from the start, also while the backbone is frozen.
            self._optimizer.build(self.model.trainable_variables)
        self._embedder = Embedder(self.model)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._best = tf.Variable(-1.0, dtype=tf.float64, trainable=False)
        self._best_step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self._checkpoints = tf.train.CheckpointManager(
            tf.train.Checkpoint(
                model=self.model,
                optimizer=self._optimizer,
                step=self._step,
                best=self._best,
                best_step=self._best_step,
                seconds=self._seconds,
            ),
            str(directory / "checkpoints"),
            max_to_keep=2,
        )

    def run(self) -> dict[str, float | int | None]:
        """Trains to the end, from the last checkpoint if there is one.

        Returns:
          The kept model's step and validation R@1 (None without validation), the last loss, and the
          seconds that all steps took, those before an interruption too.
        """
        self._checkpoints.restore_or_initialize()
        began = time.monotonic() - float(self._seconds)
        first, last = int(self._step), self._optimization.steps
        if first:
            logging.info("%s: going on from step %d of %d", self._what, first, last)
        summaries = tf.summary.create_file_writer(str(self._directory / "tensorboard"))
        dataset = self._strategy.experimental_distribute_dataset(self._batches(first))
        loss_value = math.nan
        with summaries.as_default():
            bar = None
            train_step = None
            pictures = 0
            for step, batch in zip(range(first, last), dataset):
                if train_step is None or step == self._optimization.frozen_steps:
                    train_step = self._make_step(step < self._optimization.frozen_steps)
                loss, size = train_step(batch)
                if bar is None:
                    pictures = int(size)
                    bar = progress_bar(
                        total=last * pictures,
                        initial=first * pictures,
                        what=self._what,
                        unit="images",
                    )
                bar.update(pictures)
                done = step + 1
                self._step.assign(done)
                if done % self._config.log_every == 0 or done == last:
                    loss_value = self._log(done, loss, bar)
                if done % self._config.validate_every == 0 or done == last:
                    self._keep_best(done)
                if done % self._config.checkpoint_every == 0 and done < last:
                    self._seconds.assign(time.monotonic() - began)
                    with without_keras_warnings():
                        self._checkpoints.save(done)
            if bar is not None:
                bar.close()
        summaries.close()
        shutil.rmtree(self._directory / "checkpoints", ignore_errors=True)
        return {
            "kept_step": int(self._best_step),
            "validation_r_at_1": float(self._best) if self._validate else None,
            "last_loss": loss_value,
            "trained_seconds": round(time.monotonic() - began, 1),
        }

    def _make_step(self, frozen: bool) -> Callable:
        """Traces one step, of all weights or of all but the backbone's."""
        self.model.get_layer("backbone").trainable = not frozen
        strategy, model, optimizer = self._strategy, self.model, self._optimizer

        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                embeddings = model(images, training=True)
                loss = self._loss(labels, embeddings)
            variables = model.trainable_variables
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables))
            return loss, tf.shape(embeddings)[0]

        @tf.function
        def train_step(batch: tuple) -> tuple[tf.Tensor, tf.Tensor]:
            loss, size = strategy.run(replica_step, args=batch)
            return (
                strategy.reduce(tf.distribute.ReduceOp.MEAN, loss, axis=None),
                strategy.reduce(tf.distribute.ReduceOp.SUM, size, axis=None),
            )

        return train_step

    def _log(self, step: int, loss: tf.Tensor, bar) -> float:
        value = float(loss)
        if not math.isfinite(value):
            raise UserError(
                f"{self._what}: the loss is {value} at step {step}; "
                "a smaller learning rate or a longer warm-up may help"
            )
        tf.summary.scalar("loss", value, step)
        tf.summary.scalar("learning_rate", self._optimizer.learning_rate, step)
        rate = bar.format_dict["rate"]
        if rate:
            tf.summary.scalar("images_per_second", rate, step)
        best = float(self._best)
        shown = {"best_r_at_1": f"{best:.3f}"} if best >= 0 else {}
        bar.set_postfix(loss=f"{value:.4f}", **shown, refresh=False)
        return value

    def _keep_best(self, step: int) -> None:
        """Validates and keeps the weights if they are the best so far (or nothing can tell)."""
        if self._validate is None:
            if step == self._optimization.steps:
                self._keep(step)
            return
        value = self._validate(self._embedder)
        tf.summary.scalar("validation/r_at_1", value, step)
        logging.info("%s: step %d, validation R@1 %.3f", self._what, step, value)
        # Of equals the later: its learning rate is lower and its moving statistics are better.
        if value >= float(self._best):
            self._best.assign(value)
            self._keep(step)

    def _keep(self, step: int) -> None:
        self._best_step.assign(step)
        save_embedding_model(self._directory / "model", self.model, self._model_config)
