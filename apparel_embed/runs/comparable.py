"""Whether runs may be taken together: made alike, and either of the same images or of others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from apparel_embed.common.errors import UserError
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.evaluation.protocol import Outcomes
from apparel_embed.runs.stages.start import INIT_FROM, STARTED_FROM
from apparel_embed.store.names import COMBINED
from apparel_embed.store.record import STAGE_FILE, Stage, flat_settings, open_stage

_INIT_WEIGHTS = "init_weights"
_NO_STAGES = ("prepared", _INIT_WEIGHTS)
# Datasets that share images mostly share all of them.
_IMAGES_COMPARED = 64


def check_settings(run_dirs: Sequence[Path], evaluations: Sequence[Stage]) -> None:
    """Checks that the evaluated models were made alike but for seeds and groups of verticals.

    Settings are those of all stages that an evaluation was made from. A search may find other
    groups in each run: only stages that two runs both have are compared.

    Args:
      run_dirs: directories of runs.
      evaluations: the evaluation of each.

    Raises:
      UserError: two runs in which a setting of a stage differs.
    """
    of_runs = [
        {name: _settings(stage) for name, stage in {one.name: one, **_stages_behind(one)}.items()}
        for one in evaluations
    ]
    for (run, ours), (other, theirs) in itertools.combinations(zip(run_dirs, of_runs), 2):
        for stage in (name for name in ours if name in theirs):
            for setting in sorted({*ours[stage], *theirs[stage]}):
                values = [one[stage].get(setting, "nothing") for one in (ours, theirs)]
                if values[0] != values[1]:
                    raise UserError(
                        f"--runs: stage {stage} was made with {setting}={values[0]} in {run}, but "
                        f"{values[1]} in {other}; expected runs that differ only in seeds and "
                        "groups"
                    )


def check_verticals(run_dirs: Sequence[Path], outcomes: Sequence[Outcomes]) -> None:
    """Checks that queries were answered in the same verticals in all runs.

    Args:
      run_dirs: directories of runs.
      outcomes: of one model in each of them.

    Raises:
      UserError: two runs with an answer in different verticals.
    """
    answered = [sorted(one.answered()) for one in outcomes]
    for run, verticals in zip(run_dirs, answered):
        if verticals != answered[0]:
            raise UserError(
                f"--runs: {run_dirs[0]} has answers in the verticals {', '.join(answered[0])}, but "
                f"{run} in {', '.join(verticals)}; expected datasets of the same verticals, as "
                "they else do not weigh the same"
            )


def check_images(run_dirs: Sequence[Path], datasets: Sequence[PreparedDataset], split: str) -> None:
    """Checks that different datasets have no image of the evaluated split in common.

    Names alone are not enough: garments drawn with another seed have the same manifest. Of images
    whose name and item are in both datasets, some are read and compared.

    Args:
      run_dirs: directories of runs.
      datasets: the dataset of each.
      split: that was evaluated.

    Raises:
      UserError: two runs whose datasets differ, but share images.
    """
    distinct: dict[str, tuple[Path, PreparedDataset]] = {}
    for run, one in zip(run_dirs, datasets):
        distinct.setdefault(one.fingerprint, (run, one))
    for (run, ours), (other, theirs) in itertools.combinations(distinct.values(), 2):
        names, other_names = (_records_by_name(one, split) for one in (ours, theirs))
        shared = sorted(names.keys() & other_names.keys())
        # So many at most, spread over all.
        some = shared[:: -(-len(shared) // _IMAGES_COMPARED) or 1]
        images = ours.read_images([names[name] for name in some])
        other_images = theirs.read_images([other_names[name] for name in some])
        for (name, _), content, other_content in zip(some, images, other_images):
            if content == other_content:
                raise UserError(
                    f"--runs: {run} and {other} were evaluated on different datasets that share "
                    f"images of split {split}, such as {name}; expected datasets without "
                    "images in common, or one for all: evaluate both on one prepared dataset and "
                    "name it with --prepared"
                )


def _stages_behind(stage: Stage) -> dict[str, Stage]:
    """Returns the stages that a stage was made from, and those behind them, by name.

    Names of stages of an earlier run, from whose models trainings started, begin with `INIT_FROM`.
    """
    behind = {}
    for name, fingerprint in stage.inputs.items():
        if name in _NO_STAGES:
            continue
        earlier = stage.result.get(STARTED_FROM) if name == INIT_FROM else None
        directory = Path(earlier) if earlier else stage.directory.parent / name
        found = open_stage(directory) if (directory / STAGE_FILE).is_file() else None
        if found and found.fingerprint == fingerprint:
            prefix = f"{INIT_FROM}/" if earlier else ""
            for one in ({found.name: found}, _stages_behind(found)):
                behind.update({prefix + key: value for key, value in one.items()})
        else:
            logging.warning(
                "%s: not there as %s was made from it; its settings are not compared",
                directory,
                stage.directory,
            )
    return behind


def _settings(stage: Stage) -> dict[str, Any]:
    """Returns what a stage was made with but for seeds, and for what depends on groups."""
    settings = {
        name: value
        for name, value in flat_settings(stage.flags).items()
        if name.rpartition(".")[2] != "seed" and name != "verticals"
    }
    if _INIT_WEIGHTS in stage.inputs:
        settings[_INIT_WEIGHTS] = stage.inputs[_INIT_WEIGHTS]
    if stage.name == COMBINED:
        # As many as all other trainings have: those of groups, too.
        settings.pop("optimization.steps", None)
    return settings


def _records_by_name(dataset: PreparedDataset, split: str) -> dict[tuple[str, str], int]:
    """Returns the record of each image of a split by its image and item."""
    records = dataset.select(split=split)
    images, items = (dataset.column(name)[records] for name in ("image", "item_id"))
    return dict(zip(zip(images, items), records.tolist()))
