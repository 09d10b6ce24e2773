"""The stages of SavedModels.

A SavedModel is exported as the next version, `<base>/<number>/`, so that TensorFlow Serving finds
it; each version is a separate stage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apparel_embed.common.errors import UserError
from apparel_embed.common.files import fingerprint_json, read_json
from apparel_embed.evaluation.absent import ABSENT_FILE, thresholds_of
from apparel_embed.evaluation.roles import COMBINED as COMBINED_MODEL
from apparel_embed.evaluation.roles import UNIFIED
from apparel_embed.models.detector import load_detector
from apparel_embed.models.embedding import load_embedding_model
from apparel_embed.models.vertical_head import VerticalHead
from apparel_embed.runs.run import PipelineRun, Run
from apparel_embed.runs.stages.evaluation import SUMMARY_FILE
from apparel_embed.search.build import saved_model_fingerprint
from apparel_embed.serving.exported import SAVED_MODEL, ExportConfig, saved_model_versions
from apparel_embed.serving.garments import Detector
from apparel_embed.serving.kit import render_model_card, write_serving_kit
from apparel_embed.serving.saved_model import write_saved_model
from apparel_embed.store.names import (
    COMBINED,
    COMBINED_START,
    DETECTOR,
    EVALUATION,
    OLD_STUDENT,
    STUDENT,
    TARGETS,
    VERTICAL_HEAD,
)
from apparel_embed.store.record import STAGE_FILE, Stage, find_stage, fingerprints, open_stage

_EVALUATED_AS = {STUDENT: UNIFIED, COMBINED: COMBINED_MODEL}


def export_stage(
    run: Run,
    model: Stage,
    config: ExportConfig = ExportConfig(),
    *,
    vertical_head: Stage | None = None,
    detector: Stage | None = None,
    base: Path | None = None,
) -> Stage:
    """Exports a model as the next version of a SavedModel.

    An existing version made from the same inputs is returned instead; versions are never
    overwritten. Inputs that have been redone since count as different, even with the same flags,
    as their weights may differ.

    Args:
      run: the run on whose dataset the model was trained.
      model: the model's stage.
      config: how to export.
      vertical_head: the stage of the model's vertical head, or None.
      detector: the stage of a detector, of this run or another, or None.
      base: directory of the versions; by default `versions_directory`.

    Returns:
      The stage of the version: its directory is the SavedModel.
    """
    base = base or versions_directory(run.directory, model.name)
    evaluation = run.find(EVALUATION)
    if evaluation and evaluation.inputs.get(model.name) != model.fingerprint:
        evaluation = None
    flags = {"model": model.name, **dataclasses.asdict(config)}
    aligned_to = _aligned_to(run, model)
    made = [stage for stage in (model, vertical_head, detector, evaluation) if stage]
    inputs = fingerprints(*made)
    if aligned_to:
        inputs["aligned_to"] = fingerprint_json(aligned_to)

    def work(directory: Path) -> dict[str, Any]:
        embedding_model, model_config = load_embedding_model(model.directory / "model")
        found = _load_detector(run, detector) if detector else None
        absent = _absent(evaluation) if evaluation and model.name == STUDENT else None
        card = _model_card(run, model, config, evaluation, vertical_head, found, absent)
        write_saved_model(
            embedding_model,
            directory,
            config,
            head=VerticalHead.load(vertical_head.directory) if vertical_head else None,
            detector=found,
            verticals=run.dataset.verticals,
            model_card=card,
            aligned_to=aligned_to,
            thresholds=thresholds_of(absent) if absent else None,
        )
        return dataclasses.asdict(model_config)

    made_of = flags, {"prepared": run.dataset.fingerprint, **inputs}
    versions = saved_model_versions(base)
    directory = base / str(int(versions[-1].name) + 1 if versions else 1)
    for version in reversed(versions):
        found = _find_version(version)
        is_newest = found and all("" < one.finished <= found.finished for one in made)
        if found and is_newest and (found.flags, found.inputs) == made_of:
            directory = version
            break
    return run.make(directory, work, flags=flags, inputs=inputs, overwrite=True)


def versions_directory(run_dir: Path, stage: str) -> Path:
    """Returns the directory of the versions of a stage's model.

    Servers poll `<run_dir>/saved_model` for newer versions of the student, so it must not contain
    versions of another model.
    """
    return run_dir / (SAVED_MODEL if stage == STUDENT else f"{SAVED_MODEL}-{stage}")


def serving_kit(saved_model: Stage, directory: Path) -> None:
    """Writes the files to serve a version of a SavedModel with TensorFlow Serving.

    Args:
      saved_model: the stage of the version.
      directory: output directory; must not exist.
    """
    write_serving_kit(
        directory,
        saved_model.directory,
        dim=saved_model.result["embedding_dim"],
        max_pixels=saved_model.flags["max_pixels"],
        has_head=VERTICAL_HEAD in saved_model.inputs,
        has_detector=DETECTOR in saved_model.inputs,
    )


def latest_saved_model(base: Path) -> Stage | None:
    """Returns the stage of the newest version, or None."""
    versions = saved_model_versions(base)
    return _find_version(versions[-1]) if versions else None


def _find_version(directory: Path) -> Stage | None:
    # Versions that were not exported by this project are not stages.
    return open_stage(directory) if (directory / STAGE_FILE).is_file() else None


def _aligned_to(run: Run, model: Stage) -> list[str]:
    """Returns the fingerprints of earlier SavedModels that share a model's embedding space.

    They are the exported versions of the earlier student that its targets are aligned to.
    """
    targets = run.find(TARGETS)
    old = targets.result.get(OLD_STUDENT) if targets else None
    if not (targets and old) or model.inputs.get(TARGETS) != targets.fingerprint:
        return []
    versions = saved_model_versions(Path(old).parent / SAVED_MODEL)
    found = ((path, _find_version(path)) for path in versions)
    return [
        saved_model_fingerprint(path)
        for path, stage in found
        if stage and stage.inputs.get(STUDENT) == targets.inputs[OLD_STUDENT]
    ]


def _model_card(
    run: Run,
    model: Stage,
    config: ExportConfig,
    evaluation: Stage | None,
    vertical_head: Stage | None,
    detector: Detector | None,
    absent: Mapping[str, Any] | None,
) -> str:
    evaluated_as = _EVALUATED_AS.get(model.name, "")
    metrics, routing = [], None
    if evaluation and evaluated_as:
        summary = read_json(evaluation.directory / SUMMARY_FILE)
        metrics = [row for row in summary["rows"] if row["model"] == evaluated_as]
        routing = next(iter(summary.get("routing", [])), None) if model.name == STUDENT else None
    return render_model_card(
        name=f"apparel_embed {run.directory.resolve().name}",
        stage=model.name,
        fingerprint=model.fingerprint,
        versions=read_json(model.directory / STAGE_FILE)["versions"],
        model=model.flags["model"],
        parameters=model.result["parameters"],
        data_fingerprint=run.dataset.fingerprint,
        counts=run.dataset.info["counts"],
        groups=_groups(run.directory, model),
        max_pixels=config.max_pixels,
        evaluated_as=evaluated_as,
        split=evaluation.flags["split"] if evaluation else None,
        metrics=metrics,
        routing=routing,
        searches=vertical_head.result["searches"] if vertical_head else "",
        detector=detector.config if detector else None,
        absent=absent,
    )


def _absent(evaluation: Stage) -> Mapping[str, Any] | None:
    """Returns the content of `absent.json`, or None if an earlier release made the evaluation."""
    path = evaluation.directory / ABSENT_FILE
    return read_json(path) if path.is_file() else None


def _load_detector(run: Run, stage: Stage) -> Detector:
    """Returns a detector that crops garments with the margin of the run's prepared dataset."""
    model, config = load_detector(stage.directory / "model")
    return Detector(model, config, run.dataset.image_settings.crop_margin)


def _groups(run_dir: Path, model: Stage) -> list[list[str]]:
    """Returns the verticals of each of a student's teachers; empty if its targets are missing."""
    for name, fingerprint in model.inputs.items():
        try:
            targets = find_stage(run_dir / name)
        except UserError:
            # The prepared dataset is an input, but not a stage.
            continue
        if targets and targets.fingerprint == fingerprint and "teachers" in targets.result:
            return [
                entry["verticals"]
                for entry in targets.result["teachers"]
                if not entry["name"].startswith(COMBINED_START)
            ]
    return []


def make(pipeline: PipelineRun) -> list[Stage]:
    """Exports the student, with the vertical head and the detector if they exist."""
    return [
        export_stage(
            pipeline.run,
            pipeline[STUDENT],
            pipeline.config.export,
            vertical_head=pipeline.get(VERTICAL_HEAD),
            detector=pipeline.get(DETECTOR),
        )
    ]
