"""The stage of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.evaluation.finished import GROUPED, SPECIALISTS
from apparel_embed.evaluation.roles import COMBINED as COMBINED_MODEL
from apparel_embed.evaluation.roles import UNIFIED
from apparel_embed.report.build import write_report
from apparel_embed.report.inputs import Training, load_inputs
from apparel_embed.runs.run import PipelineRun, Run, shown_in_report
from apparel_embed.runs.stages.evaluation import SUMMARY_FILE, Models, models_of
from apparel_embed.serving.exported import SAVED_MODEL
from apparel_embed.store.names import COMBINED_START, EVALUATION, REPORT
from apparel_embed.store.record import Stage, fingerprints


def report_stage(
    run: Run,
    evaluation: Stage,
    models: Models,
    *,
    export: Stage | None,
    shown: Sequence[Stage],
    measure_speed: bool,
) -> Stage:
    """Writes `index.html`, readable offline, and its figures as PNG files next to it.

    The report only shows the results of other stages, so it is overwritten when they change.

    Args:
      run: the run.
      evaluation: the evaluation stage to report.
      models: the evaluated models.
      export: the stage of a version of the SavedModel, or None.
      shown: other stages to show, see `shown_in_report`.
      measure_speed: whether to measure images per second, which differ from call to call.
    """
    trainings = _trainings(run, models)
    saved_models = {
        training.model: export.directory
        for training in trainings
        if training.model in (COMBINED_MODEL, UNIFIED)
        and export
        and export.flags["model"] == training.stage.name
    }

    def work(directory: Path) -> dict[str, Any]:
        inputs = load_inputs(
            run.dataset,
            evaluation,
            SUMMARY_FILE,
            trainings,
            saved_models,
            measure_speed,
            {stage.name: stage for stage in shown},
        )
        return write_report(inputs, directory)

    return run.make(
        REPORT,
        work,
        flags={"measure_speed": measure_speed},
        inputs={
            **fingerprints(evaluation, *(training.stage for training in trainings), *shown),
            # By content, not by version number.
            **({"saved_model": export.fingerprint} if export else {}),
        },
        overwrite=True,
    )


def _trainings(run: Run, models: Models) -> list[Training]:
    """Returns the trainings behind models, in the order in which the report shows them."""
    start = run.find(COMBINED_START) if models.combined else None
    starts = [Training(COMBINED_START, COMBINED_START, start)] if start else []
    stages = models.by_name
    if not any(len(stage.flags["verticals"]) > 1 for stage in models.grouped):
        # They are the same as the specialists.
        stages.pop(GROUPED, None)
    experts = [
        Training("+".join(stage.flags["verticals"]), name, stage)
        for name in (SPECIALISTS, GROUPED)
        for stage in stages.get(name, [])
    ]
    alone = (COMBINED_MODEL, UNIFIED)
    return [*starts, *experts] + [
        Training(name, name, one) for name in alone for one in stages.get(name, [])
    ]


def make(pipeline: PipelineRun) -> list[Stage]:
    """Writes the report on the evaluation, if any."""
    evaluation = pipeline.get(EVALUATION)
    if not evaluation:
        return []
    stage = report_stage(
        pipeline.run,
        evaluation,
        models_of(pipeline),
        export=pipeline[SAVED_MODEL],
        shown=shown_in_report(pipeline.run, pipeline.kinds),
        measure_speed=pipeline.config.measure_speed,
    )
    return [stage]
