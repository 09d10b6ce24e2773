"""The stages that lead from the student to a server: its vertical head, and the SavedModel.

A SavedModel is exported as the next version, `<base>/<number>/`, which is how TensorFlow Serving
finds new ones; each version is a stage of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import read_json
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.models.vertical_head import VerticalHead
from apparel_embed.runs.stages.training import (
    COMBINED,
    COMBINED_START,
    EVALUATION,
    STUDENT,
    SUMMARY_FILE,
)
from apparel_embed.serving.kit import render_model_card, write_serving_kit
from apparel_embed.serving.saved_model import (
    SAVED_MODEL,
    ExportConfig,
    saved_model_versions,
    write_saved_model,
)
from apparel_embed.store.record import STAGE_FILE, Stage, find_stage, open_stage
from apparel_embed.store.runs import REAL, StageAccess
from apparel_embed.training.vertical_head import train_vertical_head

VERTICAL_HEAD = "vertical_head"
_EVALUATED_AS = {STUDENT: "unified", COMBINED: "combined"}


def vertical_head_stage(
    run_dir: Path, dataset: PreparedDataset, model: Stage, access: StageAccess = REAL
) -> Stage:
    """Trains the vertical head of a model, or finds it trained; the head is in the stage.

    Args:
      run_dir: the run's directory.
      dataset: a prepared dataset.
      model: the stage of the model, usually the student.
      access: how stages are made.
    """

    def work(directory: Path) -> dict[str, Any]:
        head, report = train_vertical_head(dataset, model.directory / "model")
        head.save(directory)
        return {"verticals": list(head.verticals), **report}

    name = VERTICAL_HEAD if model.name == STUDENT else f"{VERTICAL_HEAD}-{model.name}"
    return access.make(
        run_dir / name,
        flags={},
        inputs={"prepared": dataset.fingerprint, model.name: model.fingerprint},
        work=work,
    )


def routing_sentence(head: Stage) -> str:
    """Returns a sentence that tells when searches follow the prediction of a vertical head."""
    earlier = (
        "Searches go through all verticals: the vertical head is of an earlier release, which did "
        "not measure what routing finds."
    )
    return str(head.result.get("searches", earlier))


def export_stage(
    run_dir: Path,
    dataset: PreparedDataset,
    model: Stage,
    config: ExportConfig = ExportConfig(),
    *,
    vertical_head: Stage | None = None,
    base: Path | None = None,
    access: StageAccess = REAL,
) -> Stage:
    """Exports a model as the next version of a SavedModel.

    An earlier version that was made of the same is found instead; none is overwritten.

    Args:
      run_dir: the run's directory.
      dataset: the prepared dataset that the model was trained on, for the model card.
      model: the stage of the model.
      config: how to export.
      vertical_head: the stage of the model's vertical head, or None for a model without.
      base: where versions are; by default that of `versions_directory`.
      access: how stages are made.

    Returns:
      The stage of the version: its directory is the SavedModel.
    """
    base = base or versions_directory(run_dir, model.name)
    evaluation = access.find(run_dir / EVALUATION)
    if evaluation and evaluation.inputs.get(model.name) != model.fingerprint:
        evaluation = None
    parts = [one for one in (model, vertical_head, evaluation) if one]
    flags = {"model": model.name, **dataclasses.asdict(config)}
    inputs = {"prepared": dataset.fingerprint, **{one.name: one.fingerprint for one in parts}}

    def work(directory: Path) -> dict[str, Any]:
        embedding_model, model_config = load_embedding_model(model.directory / "model")
        card = _model_card(run_dir, dataset, model, config, evaluation, vertical_head)
        write_saved_model(
            embedding_model,
            directory,
            config,
            VerticalHead.load(vertical_head.directory) if vertical_head else None,
            dataset.verticals,
            card,
        )
        return dataclasses.asdict(model_config)

    versions = saved_model_versions(base)
    following = int(versions[-1].name) + 1 if versions else 1
    directory = _same_version(versions, flags, inputs) or base / str(following)
    return access.make(directory, flags=flags, inputs=inputs, work=work, renewed=True)


def versions_directory(run_dir: Path, stage: str) -> Path:
    """Returns where the versions of a stage's model are.

    Servers poll `<run_dir>/saved_model` for newer versions of the student, so no other model's
    versions may be there.
    """
    return run_dir / (SAVED_MODEL if stage == STUDENT else f"{SAVED_MODEL}-{stage}")


def serving_kit(saved_model: Stage, directory: Path) -> None:
    """Writes the files that serve a version of a SavedModel by TensorFlow Serving.

    Args:
      saved_model: the stage of the version.
      directory: where to; must not be there.
    """
    write_serving_kit(
        directory,
        saved_model.directory,
        dim=saved_model.result["embedding_dim"],
        max_pixels=saved_model.flags["max_pixels"],
        has_head=VERTICAL_HEAD in saved_model.inputs,
    )


def latest_saved_model(base: Path) -> Stage | None:
    """Returns the stage of the newest version, or None where there is none."""
    versions = saved_model_versions(base)
    return _find_version(versions[-1]) if versions else None


def _same_version(
    versions: Sequence[Path], flags: dict[str, Any], inputs: dict[str, str]
) -> Path | None:
    """Returns the newest version that was made of the same, if there is one."""
    for version in reversed(versions):
        found = _find_version(version)
        if found and (found.flags, found.inputs) == (flags, inputs):
            return version
    return None


def _find_version(directory: Path) -> Stage | None:
    # Versions of elsewhere, and those of earlier releases, are no stages.
    return open_stage(directory) if (directory / STAGE_FILE).is_file() else None


def _model_card(
    run_dir: Path,
    dataset: PreparedDataset,
    model: Stage,
    config: ExportConfig,
    evaluation: Stage | None,
    vertical_head: Stage | None,
) -> str:
    evaluated_as = _EVALUATED_AS.get(model.name, "")
    metrics, routing = [], None
    if evaluation and evaluated_as:
        summary = read_json(evaluation.directory / SUMMARY_FILE)
        metrics = [row for row in summary["rows"] if row["model"] == evaluated_as]
        routing = next(iter(summary.get("routing", [])), None) if model.name == STUDENT else None
    return render_model_card(
        name=f"apparel_embed {run_dir.resolve().name}",
        stage=model.name,
        fingerprint=model.fingerprint,
        versions=read_json(model.directory / STAGE_FILE)["versions"],
        model=model.flags["model"],
        parameters=model.result["parameters"],
        data_fingerprint=dataset.fingerprint,
        counts=dataset.info["counts"],
        groups=_groups(run_dir, model),
        max_pixels=config.max_pixels,
        evaluated_as=evaluated_as,
        split=evaluation.flags["split"] if evaluation else None,
        metrics=metrics,
        routing=routing,
        searches=routing_sentence(vertical_head) if vertical_head else "",
    )


def _groups(run_dir: Path, model: Stage) -> list[list[str]]:
    """Returns the verticals of each of a student's teachers, as far as their stage is there."""
    for name, fingerprint in model.inputs.items():
        try:
            targets = find_stage(run_dir / name)
        except UserError:
            continue
        if targets and targets.fingerprint == fingerprint and "teachers" in targets.result:
            return [
                entry["verticals"]
                for entry in targets.result["teachers"]
                if not entry["name"].startswith(COMBINED_START)
            ]
    return []
