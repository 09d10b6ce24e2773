"""The student: one model that learns to reproduce the specialists' embeddings."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from apparel_embed.common.errors import UserError
from apparel_embed.common.settings import setting
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import VERTICAL_WEIGHTS, EpochSampler, WeightedSampler
from apparel_embed.distillation.agreement import (
    Agreement,
    augmented_agreement,
    diagnose,
    make_agreement,
)
from apparel_embed.evaluation.protocol import answered_queries
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.inference.embed import Embedder
from apparel_embed.losses.regression import (
    COSINE,
    REGRESSION_LOSSES,
    SMOOTH_L1_DELTA,
    make_regression_loss,
    standardising_scale,
)
from apparel_embed.models.embedding import ModelConfig, start_embedding_model
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.input import InputConfig
from apparel_embed.training.loop import LoopConfig
from apparel_embed.training.optimization import OptimizationConfig
from apparel_embed.training.summaries import target_measures
from apparel_embed.training.trainer import TrainingTask, train_model
from apparel_embed.training.validation import recall_within, standard_error

STUDENT_EPOCHS = 80
LEAST_STUDENT_STEPS = 600
MOST_STUDENT_STEPS = 50_000
_AUGMENTED_BATCHES = 8


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How the student is trained.

    Attributes:
      model: what to train; its embedding has the length of the targets.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      init_from: directory of an earlier run whose student a stage starts from instead, or None.
      loss: how the distance to the targets is measured, one of `REGRESSION_LOSSES`.
      standardise: whether that distance takes all dimensions of the targets as equally wide, see
        `standardising_scale`.
      optimization: the optimiser and number of steps; 0 for as many as fit the images, see
        `settled`.
      input: how training input is made.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.

    Raises:
      UserError: if the loss is one whose targets cannot be standardised, and they are to be.
    """

    model: ModelConfig = ModelConfig()
    optimization: OptimizationConfig = OptimizationConfig(steps=0, learning_rate=2e-3)
    init_weights: str = "none"
    init_from: Path | None = None
    batch_size: int = setting(
        64, "pictures in a batch of the student", 1, flag="student_batch_size"
    )
    vertical_weights: str = setting(
        "pictures",
        "how often the student sees a vertical: as often as it has pictures, all verticals equally "
        "often, or by the square root of their numbers of pictures",
        choices=VERTICAL_WEIGHTS,
        flag="student_vertical_weights",
        seldom=True,
    )
    loss: str = setting(
        "mse",
        "how the student's distance to its targets is measured: mse, squared error; cosine, 1 - "
        f"cosine; smooth_l1, squared error up to a difference of {SMOOTH_L1_DELTA:g} in a "
        "dimension and absolute beyond",
        choices=REGRESSION_LOSSES,
        flag="student_loss",
        seldom=True,
    )
    standardise: bool = setting(
        False,
        "measure that distance as if targets were equally wide in all dimensions; with mse and "
        "smooth_l1",
        flag="standardise_targets",
        seldom=True,
    )
    input: InputConfig = InputConfig()
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        # Now, and not when specialists have been trained for it.
        if self.standardise and self.loss == COSINE:
            raise UserError(
                f"--standardise_targets with --student_loss={COSINE}: expected mse or "
                "smooth_l1, as other scales of dimensions make other angles"
            )

    def settled(self, learnt: int, pictures: int) -> StudentConfig:
        """Returns the same with everything decided that depends on the number of images.

        A student is patient: it gains from many passes, as augmentation shows it new views.

        Args:
          learnt: images that it learns from.
          pictures: training images of the dataset.
        """
        optimization = self.optimization.settled(pictures)
        if not optimization.steps:
            steps = math.ceil(STUDENT_EPOCHS * learnt / self.batch_size)
            steps = min(max(steps, LEAST_STUDENT_STEPS), MOST_STUDENT_STEPS)
            optimization = dataclasses.replace(optimization, steps=steps)
        return dataclasses.replace(self, optimization=optimization)

    def for_verticals(self, count: int, total: int) -> StudentConfig:
        """Returns the training of a student of some verticals: their share of all verticals' steps.

        The backbone is trained for a step at least if it is trained in the whole, and for none if
        it is not.

        Args:
          count: verticals of the student, 1 or more.
          total: verticals that this configuration is for.
        """
        whole = self.optimization
        if not whole.steps:
            # The number of images decides, see `settled`.
            return self
        steps = max(1, round(whole.steps * count / total))
        frozen = round(whole.frozen_steps * count / total)
        frozen = min(frozen, steps - 1) if whole.frozen_steps < whole.steps else max(frozen, steps)
        validate_every = math.ceil(self.loop.validate_every * count / total)
        return dataclasses.replace(
            self,
            optimization=dataclasses.replace(whole, steps=steps, frozen_steps=frozen),
            loop=dataclasses.replace(self.loop, validate_every=validate_every),
        )


def train_student(
    dataset: PreparedDataset,
    taught: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    config: StudentConfig,
    directory: Path,
    what: str = "unified",
    start: Path | None = None,
    views: np.ndarray | None = None,
) -> dict:
    """Trains a student on every image with a target and writes it to `directory/model`.

    Args:
      dataset: the prepared dataset that the targets are of.
      taught: record numbers int64 [n], and their targets float32 [n, dim].
      held_out: record numbers of split val int64 [m], and what teachers say of them float32 [m,
        dim], to measure by; m may be 0.
      config: how to train.
      directory: of the stage, may hold what an interrupted training left.
      what: name of the model, for progress and messages.
      start: directory of a trained model to start from, or None for weights of the configuration.
        Weights are kept that are as good as any on split val, by an error, and of these those that
        agree best with the teachers on held-out images; the start is among them.
      views: float32 [n, views, features] of the records from `compute_views`, where the backbone is
        not trained; None to augment in every step.

    Returns:
      What the stage reports.

    Raises:
      UserError: if targets and model have embeddings of different lengths, there are none, the
        model to start from is built differently, or a name in the configuration is unknown.
    """
    records, targets = taught
    agree = make_agreement(dataset, *held_out, config.model.image_size)
    task = _task(dataset, records, targets, config, what, start, agree)
    loop, result = train_model(dataset, task, config, directory, what, views)
    embedder = Embedder(loop.model)
    agree_on_train = make_agreement(dataset, *taught, config.model.image_size)
    agreement = Agreement(
        agree_on_train(embedder) or 0.0,
        augmented_agreement(loop.trained, loop.batches(0).take(_AUGMENTED_BATCHES), loop.augment),
        agree(embedder),
        result.get("validation_r_at_1"),
        *_teachers_found(dataset, task.verticals, held_out),
    )
    interval = config.loop.validation_interval(config.optimization.steps)
    kept, done = result["kept_step"], result["trained_steps"]
    return {
        "agreement": dataclasses.asdict(agreement),
        "diagnosis": diagnose(agreement, kept_step=kept, trained_steps=done, interval=interval),
        "train_pictures": len(records),
        "unlabelled_pictures": int(np.isin(records, dataset.select(split=UNLABELLED)).sum()),
        **result,
    }


def _teachers_found(
    dataset: PreparedDataset, verticals: Sequence[str], held_out: tuple[np.ndarray, np.ndarray]
) -> tuple[float | None, float]:
    """Returns what teachers find on split val, and its standard error; None and 0 if unknown."""
    pictures = evaluation_set(dataset, "val", verticals)
    records, embeddings = held_out
    if not answered_queries(pictures) or not np.isin(pictures.records, records).all():
        return None, 0.0
    of_set = embeddings[np.searchsorted(records, pictures.records)]
    recall = float(np.mean(list(recall_within(of_set, pictures).values())))
    return recall, standard_error(pictures, verticals)(recall)


def _task(
    dataset: PreparedDataset,
    records: np.ndarray,
    targets: np.ndarray,
    config: StudentConfig,
    what: str,
    start: Path | None,
    agree: Callable[[Embedder], float | None],
) -> TrainingTask:
    """Returns what a student is to learn; arguments are those of `train_student`."""
    if not len(targets):
        raise UserError(f"{what}: there are no targets to learn from")
    if targets.shape[1] != config.model.embedding_dim:
        raise UserError(
            f"{what}: the targets have {targets.shape[1]} dimensions, --embedding_dim is "
            f"{config.model.embedding_dim}; they must be equal"
        )
    codes, names = dataset.codes("vertical")
    verticals = codes[records]

    def held_out_cosine(embedder: Embedder) -> float:
        cosine = agree(embedder)
        if cosine is not None:
            tf.summary.scalar("validation/mean_cosine", cosine)
        return cosine or 0.0

    scale = standardising_scale(targets) if config.standardise else None
    return TrainingTask(
        records,
        names[np.unique(verticals)].tolist(),
        _sampler(verticals, config),
        make_regression_loss(config.loss, scale),
        target_measures,
        functools.partial(start_embedding_model, config.model, config.init_weights, start),
        keep_start=start is not None,
        targets=targets,
        prefer=held_out_cosine,
    )


def _sampler(verticals: np.ndarray, config: StudentConfig) -> EpochSampler | WeightedSampler:
    """Returns what makes batches of images whose verticals [n] are given, as numbers."""
    size, weights, seed = config.batch_size, config.vertical_weights, config.optimization.seed
    if weights == "pictures":
        # Every image exactly once an epoch, which no rounding of weights can upset.
        return EpochSampler.over(len(verticals), batch_size=size, seed=seed)
    return WeightedSampler.of_verticals(verticals, weights=weights, batch_size=size, seed=seed)
