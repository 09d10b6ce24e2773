r"""Runs the whole pipeline, from images to one served embedding model.

    python tools/run_pipeline.py --flagfile=flags/quickstart.flags

draws synthetic garments; trains one combined model on all verticals and, from it, one specialist
per vertical; exports the teachers' embeddings; trains one student on them, and the combined model
further for comparison; evaluates all models on the same queries; exports the student as a
SavedModel; and writes a report. With your own images:

    python tools/run_pipeline.py --manifest=data/manifest.csv --run_dir=runs/mine \
      --backbone=efficientnet_lite_b0 --image_size=160

Run again, it skips finished stages and resumes an interrupted one. With --grow_from=runs/x the
student of an earlier run learns additional verticals. --dry_run prints what would be done.
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.data_flags import PrepareFlags, synthetic_flags
from apparel_embed.cli.define import SERVED, ConfigFlags, define
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.grouping_flags import GroupingFlags
from apparel_embed.cli.run_flags import RunFlag
from apparel_embed.cli.shared_flags import ProcessesFlag, dry_run_flag
from apparel_embed.cli.target_flags import StartFlag, TargetFlags
from apparel_embed.cli.training_flags import (
    DetectorFlags,
    SpecialistFlags,
    StudentFlags,
    TrainingFlags,
)
from apparel_embed.common.cluster import read_cluster
from apparel_embed.common.files import read_json
from apparel_embed.evaluation.roles import COMBINED, model_to_deploy
from apparel_embed.runs.config import GrowthConfig, PipelineConfig
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.serving.exported import ExportConfig

_RUN = RunFlag()
_MANIFEST = define(
    "manifest", None, "manifest, CSV or Parquet; without one, synthetic garments are drawn"
)
_GROUPING = GroupingFlags()
_PIPELINE = ConfigFlags(PipelineConfig)
_GROWTH = ConfigFlags(GrowthConfig)
_SPECIALIST_START = StartFlag("specialist")
_TARGETS = TargetFlags()
_STUDENT_START = StartFlag("student")
_EXPORT = ConfigFlags(ExportConfig, SERVED)
_DETECTOR_WANTED = define(
    "detector",
    False,
    "also train a detector of garments in photographs on the manifest's boxes, and export it",
    group=SERVED,
)
_OF_STAGES = {kind.name: ConfigFlags(kind.config) for kind in STAGES if kind.config}
_PROCESSES = ProcessesFlag()
_DRY_RUN = dry_run_flag()
_SYNTHETIC = synthetic_flags()
_PREPARE = PrepareFlags()
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_TRAINING)
_STUDENT = StudentFlags(_TRAINING)
_DETECTOR = DetectorFlags(_TRAINING)


def main() -> None:
    """Runs the pipeline and prints a summary."""
    from apparel_embed.report.build import PAGE_FILE
    from apparel_embed.runs.pipeline import run_pipeline

    run_dir = _RUN.run_dir
    init_from = _TRAINING.init_from
    config = _PIPELINE.config(
        run_dir=run_dir,
        synthetic=None if _MANIFEST.value else _SYNTHETIC.config(),
        prepare=_PREPARE.config(Path(_MANIFEST.value or ""), run_dir / "prepared"),
        specialist=_SPECIALIST.config(),
        student=_STUDENT.config(),
        detector=_DETECTOR.config() if _DETECTOR_WANTED.value else None,
        grouping=_GROUPING.config(),
        specialists_start_from_combined=_SPECIALIST_START.from_combined(init_from),
        align_to=_TARGETS.align_to,
        targets=_TARGETS.config(_TRAINING.embedding_dim, _TRAINING.seed),
        growth=_GROWTH.config(),
        start_from_combined=_STUDENT_START.requested,
        processes=_PROCESSES.value,
        export=_EXPORT.config(),
        of_stages={name: own.config() for name, own in _OF_STAGES.items()},
    )
    if _DRY_RUN.value:
        _print_plan(config)
        return
    _TRAINING.start()
    result = run_pipeline(config)
    rows: list[tuple[str, object]] = []
    if result.evaluation and result.report:
        rows = _measured(run_dir, result.evaluation.directory)
        rows.append(("Report", result.report.directory / PAGE_FILE))
    else:
        rows = [("Measured", f"nothing: split {config.split} has no query with a match")]
    print_summary(
        [
            *rows,
            ("SavedModel", f"{result.saved_model} (the student)"),
            ("TensorBoard", command("tensorboard", logdir=run_dir)),
            ("Next", command("tools/build_index.py", **_RUN.again)),
            ("Then", command("tools/serve_search.py", **_RUN.again)),
        ]
    )


def _print_plan(config: PipelineConfig) -> None:
    """Prints what would be done, and how long it would take."""
    from apparel_embed.models.backbones import try_initial_weights
    from apparel_embed.runs.expected_time import expected_time
    from apparel_embed.runs.pipeline import plan_pipeline

    plan = plan_pipeline(config)
    plan.refuse()
    time = ""
    # In a cluster, a measured step would wait for the other processes.
    if config.measure_speed and read_cluster() is None:
        _TRAINING.start()
        model, weights = config.specialist.model, config.specialist.init_weights
        if Path(weights).is_file():
            try_initial_weights(model.backbone, weights)
        time = expected_time(
            plan.work, config.specialist, config.student, plan.train_images, config.detector
        )
    print(plan.render(time))


def _measured(run_dir: Path, evaluation: Path) -> list[tuple[str, object]]:
    """Prints the tables of an evaluation; returns its rows of the summary."""
    from apparel_embed.runs.stages.evaluation import SUMMARY_FILE, TABLES_FILE

    print((evaluation / TABLES_FILE).read_text("utf-8"))
    summary = read_json(evaluation / SUMMARY_FILE)
    model, why = model_to_deploy(summary["rows"], summary["comparisons"])
    rows: list[tuple[str, object]] = [("Deploy", f"{model}, {why}" if model else why)]
    if model:
        export = command("tools/export_saved_model.py", **_RUN.again, stage=COMBINED)
        rows.append(("With" if model == COMBINED else "Or combined", export))
    return [
        *rows,
        ("Summary", evaluation / SUMMARY_FILE),
        ("Embeddings", evaluation / "embeddings"),
    ]


if __name__ == "__main__":
    app.run(main, resumes=True)
