"""The trials of a search as real trainings: stages of the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.models import embed_by_frozen_backbone, embed_by_model
from apparel_embed.evaluation.protocol import Outcomes, answered_queries, query_outcomes
from apparel_embed.evaluation.split import evaluation_set
from apparel_embed.grouping.trials import Group, Trial
from apparel_embed.runs.stages.training import specialist_stage
from apparel_embed.store.record import Stage
from apparel_embed.training.specialist import SpecialistConfig


class StageTrainer:
    """Trains groups as stages `specialist-...` of a run, and validates them on split val.

    The specialist of a group is trained for as many steps as its verticals' own together. A stage
    that is finished is not trained again, whoever finished it.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      config: how the specialist of one vertical is trained.
      start: the stage with the model that all of them start from, or None.

    Raises:
      UserError: by `train`, before anything is trained, if split val answers no query.
    """

    def __init__(
        self,
        run_dir: Path,
        dataset: PreparedDataset,
        config: SpecialistConfig,
        start: Stage | None = None,
    ) -> None:
        self._start = start
        self._run_dir = run_dir
        self._dataset = dataset
        self._config = config
        self._pictures = evaluation_set(dataset, "val")

    @property
    def verticals(self) -> Sequence[str]:
        """All verticals of the dataset."""
        return self._dataset.verticals

    def train(self, verticals: Group) -> Trial:
        """Returns the trial of a group, trained now or found finished."""
        if not answered_queries(self._pictures):
            raise UserError(
                f"{self._dataset.directory}: split val answers no query, so that no group can be "
                "judged; hold items back for it, or give the groups (--grouping=given)"
            )
        config = self._config.for_verticals(len(verticals))
        stage = specialist_stage(self._run_dir, self._dataset, verticals, config, start=self._start)
        model = embed_by_model(self._dataset, self._pictures.records, stage.directory / "model")
        return Trial(
            verticals=verticals,
            stage=stage.name,
            outcomes=query_outcomes(model.embeddings, self._pictures),
            steps=config.optimization.steps,
            # Stages of an earlier release know their last part only.
            seconds=stage.result.get("trained_seconds", stage.seconds),
        )

    def untrained(self) -> Outcomes:
        """Returns what the model finds that trials start from."""
        if self._start:
            directory = self._start.directory / "model"
            started = embed_by_model(self._dataset, self._pictures.records, directory)
            return query_outcomes(started.embeddings, self._pictures)
        config = self._config
        model = embed_by_frozen_backbone(
            self._dataset,
            self._pictures.records,
            config.model,
            config.init_weights,
            config.optimization.seed,
        )
        return query_outcomes(model.embeddings, self._pictures)
