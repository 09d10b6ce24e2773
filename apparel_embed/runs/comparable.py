"""Checks that runs can be compared: equal settings, and the same or disjoint datasets."""

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
    """Checks that the evaluated models differ only in seeds and groups of verticals.

    The settings are those of all stages that an evaluation depends on. A search may find different
    groups in each run, so only stages that both runs have are compared.

    Args:
      run_dirs: directories of runs.
      evaluations: the evaluation stage of each run.

    Raises:
      UserError: a setting of a stage differs between two runs.
    """
    of_runs = [
        {name: _settings(stage) for name, stage in {one.name: one, **_stages_behind(one)}.items()}
        for one in evaluations
    ]
    for (run, ours), (other, theirs) in itertools.combinations(zip(run_dirs, of_runs), 2):
        for stage in (name for name in ours if name in theirs):
            for setting in sorted({*ours[stage], *theirs[stage]}):
                values = [one[stage].get(setting, "(not set)") for one in (ours, theirs)]
                if values[0] != values[1]:
                    raise UserError(
                        f"--runs: stage {stage} was made with {setting}={values[0]} in {run}, but "
                        f"{values[1]} in {other}; expected runs that differ only in seeds and "
                        "groups"
                    )


def check_verticals(run_dirs: Sequence[Path], outcomes: Sequence[Outcomes]) -> None:
    """Checks that all runs have queries with a match in the same verticals.

    Args:
      run_dirs: directories of runs.
      outcomes: outcomes of one model in each run.

    Raises:
      UserError: the verticals of two runs differ.
    """
    answered = [sorted(one.answered()) for one in outcomes]
    for run, verticals in zip(run_dirs, answered):
        if verticals != answered[0]:
            raise UserError(
                f"--runs: {run_dirs[0]} has queries with a match in the verticals "
                f"{', '.join(answered[0])}, but {run} in {', '.join(verticals)}; expected datasets "
                "with the same verticals, so that they have equal weight"
            )


def check_images(run_dirs: Sequence[Path], datasets: Sequence[PreparedDataset], split: str) -> None:
    """Checks that different datasets share no image of the evaluated split.

    Names alone are not enough: garments drawn with another seed have the same manifest. A sample of
    the images whose name and item are in both datasets is read and compared.

    Args:
      run_dirs: directories of runs.
      datasets: the dataset of each run.
      split: the split that was evaluated.

    Raises:
      UserError: the datasets of two runs differ but share images.
    """
    distinct: dict[str, tuple[Path, PreparedDataset]] = {}
    for run, one in zip(run_dirs, datasets):
        distinct.setdefault(one.fingerprint, (run, one))
    for (run, ours), (other, theirs) in itertools.combinations(distinct.values(), 2):
        names, other_names = (_records_by_name(one, split) for one in (ours, theirs))
        shared = sorted(names.keys() & other_names.keys())
        # At most _IMAGES_COMPARED, spread evenly over all shared images.
        some = shared[:: -(-len(shared) // _IMAGES_COMPARED) or 1]
        images = ours.read_images([names[name] for name in some])
        other_images = theirs.read_images([other_names[name] for name in some])
        for (name, _), content, other_content in zip(some, images, other_images):
            if content == other_content:
                raise UserError(
                    f"--runs: {run} and {other} were evaluated on different datasets that share "
                    f"images of split {split}, such as {name}; expected disjoint datasets or the "
                    "same one: evaluate both on one prepared dataset and name it with --prepared"
                )


def _stages_behind(stage: Stage) -> dict[str, Stage]:
    """Returns the stages that a stage depends on, directly or indirectly, by name.

    The names of an earlier run's stages, whose models trainings started from, begin with
    `INIT_FROM`.
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
                "%s: missing or changed since %s was made from it; its settings are not compared",
                directory,
                stage.directory,
            )
    return behind


def _settings(stage: Stage) -> dict[str, Any]:
    """Returns the settings of a stage, except seeds and those that depend on the groups."""
    settings = {
        name: value
        for name, value in flat_settings(stage.flags).items()
        if name.rpartition(".")[2] != "seed" and name != "verticals"
    }
    if _INIT_WEIGHTS in stage.inputs:
        settings[_INIT_WEIGHTS] = stage.inputs[_INIT_WEIGHTS]
    if stage.name == COMBINED:
        # The sum over all other trainings, including those of groups.
        settings.pop("optimization.steps", None)
    return settings


def _records_by_name(dataset: PreparedDataset, split: str) -> dict[tuple[str, str], int]:
    """Returns the record numbers of a split's images, keyed by image name and item."""
    records = dataset.select(split=split)
    images, items = (dataset.column(name)[records] for name in ("image", "item_id"))
    return dict(zip(zip(images, items), records.tolist()))
