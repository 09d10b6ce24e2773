"""The stage of frozen views: backbone features that trainings with a frozen backbone share."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.common.text import counted
from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.runs.run import Run
from apparel_embed.runs.stages.start import Start, weights_input
from apparel_embed.store.names import FROZEN_VIEWS
from apparel_embed.store.record import Stage, Workload
from apparel_embed.training.config import SpecialistConfig, StudentConfig
from apparel_embed.training.frozen_views import compute_views

VIEWS_FILE = "views.npy"
# The features do not depend on it: they are computed before the projection.
_ANY_DIM = 2


def views_stage(run: Run, config: SpecialistConfig | StudentConfig, start: Start) -> Stage | None:
    """Computes backbone features of views of all images to learn from, if it is never trained.

    The first training that can use them runs this stage.

    Args:
      run: the run.
      config: configuration of a training, settled.
      start: the model that the training starts from.

    Returns:
      The stage, which a run's trainings share; None if the backbone is trained, its weights are not
      the initial weights, or each step augments images again. An earlier student's backbone has the
      initial weights if it was itself trained on views computed with them.
    """
    is_frozen = not config.optimization.train_backbone and config.model.pooling != "gem"
    if not (is_frozen and config.init_weights != "none" and config.input.views):
        return None
    if start.previous and not isinstance(config, StudentConfig):
        # These are the views of the student; teachers of a grown run learn from other images.
        return None
    stage, weights = start.own or start.previous, weights_input(config.init_weights)
    if stage and (FROZEN_VIEWS not in stage.inputs or not weights.items() <= stage.inputs.items()):
        return None
    model = dataclasses.replace(config.model, embedding_dim=_ANY_DIM)
    augment, views = config.input.augment, config.input.views

    def work(directory: Path) -> dict[str, Any]:
        records = _learnt_from(run.dataset)
        found = compute_views(
            run.dataset, records, model, config.init_weights, augment=augment, views=views
        )
        np.save(directory / VIEWS_FILE, found)
        return {"images": len(records), "views": found.shape[1], "features": found.shape[2]}

    return run.make(
        FROZEN_VIEWS,
        work,
        flags={
            "model": dataclasses.asdict(model),
            "augment": dataclasses.asdict(augment),
            "views": views,
        },
        inputs=weights,
        size=f"{counted(views, 'view')} of {counted(run.learnt(), 'image')}",
        workload=Workload(views=views * run.learnt()),
    )


def read_views(
    views: Stage | None, dataset: PreparedDataset, records: np.ndarray
) -> np.ndarray | None:
    """Returns the views of some records: float32 [n, views, features]; None without a stage.

    Args:
      views: from `views_stage`.
      dataset: a prepared dataset.
      records: int64 [n] record numbers.
    """
    if views is None:
        return None
    kept = np.load(views.directory / VIEWS_FILE, mmap_mode="r")
    return kept[np.searchsorted(_learnt_from(dataset), records)]


def _learnt_from(dataset: PreparedDataset) -> np.ndarray:
    """Returns the sorted records that models learn from."""
    splits = (dataset.select(split=split) for split in ("train", UNLABELLED))
    return np.sort(np.concatenate(list(splits)))
