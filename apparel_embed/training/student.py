"""The student: one model that learns to reproduce the specialists' embeddings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from absl import logging

from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.data.sampler import EpochSampler, WeightedSampler
from apparel_embed.errors import UserError
from apparel_embed.inference.image_store import ImageStore
from apparel_embed.losses.regression import (
    COSINE,
    make_regression_loss,
    standardising_scale,
)
from apparel_embed.models.embedding import ModelConfig, start_embedding_model
from apparel_embed.training.execution import ExecutionConfig
from apparel_embed.training.first_batch import first_batch_sheet
from apparel_embed.training.input import InputConfig, augmentation, target_batches
from apparel_embed.training.loop import LoopConfig, TrainingLoop
from apparel_embed.training.measures import target_measures
from apparel_embed.training.optimization import OptimizationConfig
from apparel_embed.training.strategy import batch_share, make_strategy, start_afresh
from apparel_embed.training.summaries import BatchSummaries
from apparel_embed.training.validation import make_validation


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """How the student is trained.

    Attributes:
      model: what to train; its embedding has the length of the targets.
      init_weights: initial weights of the backbone, as in `load_initial_weights`.
      init_from: directory of an earlier run whose student a stage starts from instead, or None.
      batch_size: pictures a batch.
      vertical_weights: how often the pictures of each vertical are seen, one of
        `VERTICAL_WEIGHTS`.
      loss: how the distance to the targets is measured, one of `REGRESSION_LOSSES`.
      standardise: whether that distance takes all dimensions of the targets as equally wide, see
        `standardising_scale`.
      optimization: the optimiser and number of steps.
      input: how training input is made.
      loop: how often to validate, log and save.
      strategy: a name for `make_strategy`.
      execution: how steps are computed.

    Raises:
      UserError: if the loss is one whose targets cannot be standardised, and they are to be.
    """

    model: ModelConfig
    optimization: OptimizationConfig
    init_weights: str = "none"
    init_from: Path | None = None
    batch_size: int = 64
    vertical_weights: str = "pictures"
    loss: str = "mse"
    standardise: bool = False
    input: InputConfig = InputConfig()
    loop: LoopConfig = LoopConfig()
    strategy: str = "auto"
    execution: ExecutionConfig = ExecutionConfig()

    def __post_init__(self) -> None:
        # Now, and not when specialists have been trained for it.
        if self.standardise and self.loss == COSINE:
            raise UserError(
                f"--standardise_targets with --student_loss={COSINE}: allowed are mse and "
                "smooth_l1, as other scales of dimensions make other angles"
            )

    def for_verticals(self, count: int, total: int) -> StudentConfig:
        """Returns the training of a student of some verticals: their share of all verticals' steps.

        The backbone is trained for a step at least if it is trained in the whole, and for none if
        it is not.

        Args:
          count: verticals of the student, 1 or more.
          total: verticals that this configuration is for.
        """
        whole = self.optimization
        steps = max(1, round(whole.steps * count / total))
        frozen = round(whole.frozen_steps * count / total)
        frozen = min(frozen, steps - 1) if whole.frozen_steps < whole.steps else max(frozen, steps)
        validate_every = max(1, round(self.loop.validate_every * count / total))
        return dataclasses.replace(
            self,
            optimization=dataclasses.replace(whole, steps=steps, frozen_steps=frozen),
            loop=dataclasses.replace(self.loop, validate_every=validate_every),
        )


def train_student(
    dataset: PreparedDataset,
    records: np.ndarray,
    targets: np.ndarray,
    config: StudentConfig,
    directory: Path,
    what: str = "unified",
    start: Path | None = None,
) -> dict:
    """Trains a student and writes it to `directory/model`.

    Every picture with a target is used; whether its item is known, or has other pictures, does
    not matter.

    Args:
      dataset: the prepared dataset that the targets are of.
      records: int64 [n] record numbers.
      targets: float32 [n, dim], the embedding that a specialist gives each record.
      config: how to train.
      directory: of the stage, may hold what an interrupted training left.
      what: name of the model, for progress and messages.
      start: directory of a trained model whose weights the student starts from, or None for
        those of the configuration. Where targets are aligned to that model's space, it starts close
        to them. A shorter embedding than the student's is taken to be zero in the further
        dimensions, such as those of targets whose groups are kept apart.

    Returns:
      What the stage reports: pictures and how many of them are unlabelled, parameters, kept step,
      validation R@1, last loss.

    Raises:
      UserError: if targets and model have embeddings of different lengths, there are none, the
        model to start from is built differently, or a name in the configuration is unknown.
    """
    _check_targets(targets, config, what)
    scale = standardising_scale(targets) if config.standardise else None
    loss = make_regression_loss(config.loss, scale)
    seed = config.optimization.seed
    start_afresh(seed)
    strategy = make_strategy(config.strategy)
    store = ImageStore(dataset, records, config.model.image_size, config.input.cache_gib, what)
    codes, names = dataset.codes("vertical")
    verticals = codes[records]
    sampler = _sampler(verticals, config)
    taught = names[np.unique(verticals)].tolist()
    validate = make_validation(dataset, taught, config.model.image_size)
    if validate is None:
        logging.info("%s: split val answers no query; the last weights are kept", what)
    augment = augmentation(config.input, strategy)
    loop = TrainingLoop(
        build_model=lambda: start_embedding_model(config.model, config.init_weights, start),
        model_config=config.model,
        batches=target_batches(
            store, targets, sampler, config.optimization.steps, batch_share(strategy)
        ),
        loss=loss,
        validate=validate,
        optimization=config.optimization,
        config=config.loop,
        strategy=strategy,
        directory=directory,
        what=what,
        augment=augment,
        execution=config.execution,
        summaries=BatchSummaries(
            target_measures,
            lambda: first_batch_sheet(dataset, records, store, sampler, augment),
        ),
    )
    result = loop.run()
    return {
        "train_pictures": len(records),
        "unlabelled_pictures": int(np.isin(records, dataset.select(split=UNLABELLED)).sum()),
        "parameters": loop.model.count_params(),
        **result,
    }


def _check_targets(targets: np.ndarray, config: StudentConfig, what: str) -> None:
    if not len(targets):
        raise UserError(f"{what}: there are no targets to learn from")
    if targets.shape[1] != config.model.embedding_dim:
        raise UserError(
            f"{what}: the targets have {targets.shape[1]} dimensions, --embedding_dim is "
            f"{config.model.embedding_dim}; they must be equal"
        )


def _sampler(verticals: np.ndarray, config: StudentConfig) -> EpochSampler | WeightedSampler:
    """Returns what makes batches of pictures whose verticals [n] are given, as numbers."""
    seed = config.optimization.seed
    if config.vertical_weights == "pictures":
        # Every picture exactly once an epoch, which no rounding of weights can upset.
        return EpochSampler.over(len(verticals), batch_size=config.batch_size, seed=seed)
    return WeightedSampler.of_verticals(
        verticals,
        weights=config.vertical_weights,
        batch_size=config.batch_size,
        seed=seed,
    )
