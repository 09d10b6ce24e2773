"""The stage of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apparel_embed.evaluation.finished import GROUPED, SPECIALISTS
from apparel_embed.report.build import write_report
from apparel_embed.report.inputs import COMBINED as COMBINED_MODEL
from apparel_embed.report.inputs import UNIFIED, Training, load_inputs
from apparel_embed.runs.stages.evaluation import SUMMARY_FILE, Models, models_of
from apparel_embed.runs.walk import Run, StageKind, Walk, shown_in_report
from apparel_embed.serving.versions import SAVED_MODEL
from apparel_embed.store.names import EVALUATION, REPORT
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
    """Writes `index.html`, readable offline, and its figures as PNG files beside it.

    The report only shows what other stages have found, so it is overwritten when they change.

    Args:
      run: the run.
      evaluation: the stage to report.
      models: those that were evaluated.
      export: the stage of a version of the SavedModel, or None.
      shown: further stages to show, see `shown_in_report`.
      measure_speed: whether to measure images per second, which differ from call to call.
    """
    by_name = models.by_name
    if not any(len(stage.flags["verticals"]) > 1 for stage in models.grouped):
        # They are the specialists once more.
        by_name.pop(GROUPED, None)
    trainings = [
        Training("+".join(stage.flags["verticals"]), name, stage)
        for name in (SPECIALISTS, GROUPED)
        for stage in by_name.get(name, [])
    ]
    trainings += [
        Training(name, name, stage)
        for name in (COMBINED_MODEL, UNIFIED)
        for stage in by_name.get(name, [])
    ]
    saved_models = {
        name: export.directory
        for name in (COMBINED_MODEL, UNIFIED)
        for stage in by_name.get(name, [])
        if export and export.flags["model"] == stage.name
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
            # By what it is, and not by the number of its version.
            **({"saved_model": export.fingerprint} if export else {}),
        },
        overwrite=True,
    )


def _make(walk: Walk) -> list[Stage]:
    evaluation = walk.get(EVALUATION)
    if not evaluation:
        return []
    stage = report_stage(
        walk.run,
        evaluation,
        models_of(walk),
        export=walk[SAVED_MODEL],
        shown=shown_in_report(walk.run, walk.kinds),
        measure_speed=walk.config.measure_speed,
    )
    return [stage]


KIND = StageKind(REPORT, _make)
