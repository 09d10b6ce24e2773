"""The stage that a run's trainings share where their backbone is not trained: its views."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from apparel_embed.data.manifest import UNLABELLED
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.inference.damage import report_corrupt_records
from apparel_embed.runs.previous import weights_input
from apparel_embed.store.record import Stage
from apparel_embed.store.runs import REAL, StageAccess
from apparel_embed.training.frozen_views import compute_views
from apparel_embed.training.specialist import SpecialistConfig
from apparel_embed.training.student import StudentConfig

FROZEN_VIEWS = "frozen-views"
VIEWS_FILE = "views.npy"
# Features are made before the projection.
_ANY_DIM = 2


def views_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    config: SpecialistConfig | StudentConfig,
    start: Stage | None,
    previous: Stage | None,
    access: StageAccess = REAL,
) -> Stage | None:
    """Puts views of all images to learn from through the backbone, if that is never trained.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      config: of a training, settled.
      start: the stage of this run that the training starts from, or None.
      previous: that of an earlier run, or None.
      access: how stages are made.

    Returns:
      The stage, which the trainings of a run share; None where the backbone is trained, where it
      has no initial weights or those of another training, or where each step augments anew.
    """
    is_frozen = not config.optimization.train_backbone and config.model.pooling != "gem"
    has_weights = config.init_weights != "none" and not previous
    if not (is_frozen and has_weights and config.input.views):
        return None
    if start and FROZEN_VIEWS not in start.inputs:
        return None
    model = dataclasses.replace(config.model, embedding_dim=_ANY_DIM)

    def work(directory: Path) -> dict[str, Any]:
        records = _learnt_from(dataset)
        found = compute_views(
            dataset,
            records,
            model,
            config.init_weights,
            augment=config.input.augment,
            views=config.input.views,
        )
        np.save(directory / VIEWS_FILE, found)
        return {"pictures": len(records), "views": found.shape[1], "features": found.shape[2]}

    return access.make(
        run_dir / FROZEN_VIEWS,
        flags={
            "model": dataclasses.asdict(model),
            "augment": dataclasses.asdict(config.input.augment),
            "views": config.input.views,
        },
        inputs={"prepared": dataset.fingerprint, **weights_input(config.init_weights)},
        work=report_corrupt_records(dataset, work),
    )


def views_input(views: Stage | None) -> dict[str, str]:
    """Returns the input of a training that is made from views, if it is."""
    return {FROZEN_VIEWS: views.fingerprint} if views else {}


def read_views(
    views: Stage | None, dataset: PreparedDataset, records: np.ndarray
) -> np.ndarray | None:
    """Returns views of some records: float32 [n, views, features]; None where there are none.

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
    """Returns the records that are learnt from, rising."""
    splits = (dataset.select(split=split) for split in ("train", UNLABELLED))
    return np.sort(np.concatenate(list(splits)))
