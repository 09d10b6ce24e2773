r"""Walks the whole way from pictures to one served embedding model.

    python tools/run_pipeline.py --flagfile=flags/quickstart.flags

draws synthetic garments, trains one specialist per vertical and, for comparison, one combined
model on all; exports the specialists' embeddings; trains one student on them; evaluates all on
the same queries; exports the student as a SavedModel; and writes a report of it all. With your
own pictures:

    python tools/run_pipeline.py --manifest=data/manifest.csv --run_dir=runs/mine \
      --backbone=efficientnet_lite_b0 --image_size=160

Called again it skips what is finished and goes on where it was interrupted. With --init_from=runs/x
trainings start from the models of an earlier run, e.g. one on more, but noisy pictures. --dry_run
tells what is finished and what would be done.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.data_flags import PrepareFlags
from apparel_embed.cli.define import define_number
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import command, tell_end
from apparel_embed.cli.evaluation_flags import measure_speed_flag, split_flag
from apparel_embed.cli.grouping_flags import GroupingFlags
from apparel_embed.cli.machine_flags import ProcessesFlag
from apparel_embed.cli.model_flags import ModelFlags
from apparel_embed.cli.run_flags import RunFlag
from apparel_embed.cli.serving_flags import ExportFlags, vertical_head_flag
from apparel_embed.cli.synthetic_flags import SyntheticFlags
from apparel_embed.cli.target_flags import (
    SpecialistStartFlag,
    StudentStartFlag,
    TargetFlags,
)
from apparel_embed.cli.training_flags import SpecialistFlags, StudentFlags, TrainingFlags
from apparel_embed.common.cluster import read_cluster
from apparel_embed.common.files import read_json
from apparel_embed.evaluation.roles import COMBINED, model_to_deploy
from apparel_embed.report.build import PAGE_FILE
from apparel_embed.runs.expected_time import expected_time
from apparel_embed.runs.pipeline import PipelineConfig, plan_pipeline, run_pipeline
from apparel_embed.runs.stages.training import SUMMARY_FILE, TABLES_FILE
from apparel_embed.training.readiness import JOIN, SMALL_VERTICALS

_RUN = RunFlag()
_MANIFEST = flags.DEFINE_string(
    "manifest", None, "manifest, CSV or Parquet; without one, synthetic garments are drawn"
)
_GROUPING = GroupingFlags()
_SINGLE_SPECIALISTS = flags.DEFINE_bool(
    "single_specialists",
    True,
    "train one specialist per vertical, to teach and to compare with, whatever the groups",
)
_SMALL_VERTICALS = flags.DEFINE_enum(
    "small_verticals",
    JOIN,
    list(SMALL_VERTICALS),
    "what becomes of verticals with fewer than two items to train on: "
    + "; ".join(f"{name}, {what}" for name, what in SMALL_VERTICALS.items()),
)
_COMBINED_STEPS = define_number(
    "combined_steps",
    450,
    "training steps of the combined model for each vertical, before specialists and student start "
    "from it; the combined model that they are compared with then goes on for as many steps as "
    "all of them take",
    1,
)
_COMBINED_LEARNING_RATE = define_number(
    "combined_learning_rate",
    None,
    "learning rate of the combined model at its peak; by default that of specialists",
    0.0,
    10.0,
)
_COMBINED_SEEDS = define_number(
    "combined_seeds",
    1,
    "combined models, alike but for their seeds, that teach the student beside specialists",
    1,
    100,
)
_SPECIALIST_START = SpecialistStartFlag()
_TARGETS = TargetFlags()
_STUDENT_START = StudentStartFlag()
_SPLIT = split_flag()
_MEASURE_SPEED = measure_speed_flag()
_VERTICAL_HEAD = vertical_head_flag()
_EXPORT = ExportFlags()
_PROCESSES = ProcessesFlag()
_REDO_FROM = flags.DEFINE_list(
    "redo_from",
    [],
    "stages to make anew, with all that was made from them; the old ones are kept in "
    "<run_dir>/replaced/<number>",
)
_DRY_RUN = DryRunFlag()
_SYNTHETIC = SyntheticFlags()
_PREPARE = PrepareFlags()
_MODEL = ModelFlags()
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_MODEL, _TRAINING)
_STUDENT = StudentFlags(_MODEL, _TRAINING)


def main() -> None:
    """Runs the pipeline and says what came of it."""
    run_dir = _RUN.run_dir
    config = PipelineConfig(
        run_dir=run_dir,
        synthetic=None if _MANIFEST.value else _SYNTHETIC.config(),
        prepare=_PREPARE.config(Path(_MANIFEST.value or ""), run_dir / "prepared"),
        specialist=_SPECIALIST.config(),
        student=_STUDENT.config(),
        grouping=_GROUPING.config(),
        combined_steps=_COMBINED_STEPS.value,
        combined_learning_rate=_COMBINED_LEARNING_RATE.value,
        combined_seeds=_COMBINED_SEEDS.value,
        small_verticals=_SMALL_VERTICALS.value,
        single_specialists=_SINGLE_SPECIALISTS.value,
        specialists_start_from_combined=_SPECIALIST_START.from_combined(_MODEL.init_from),
        align_to=_TARGETS.align_to,
        targets=_TARGETS.config(_MODEL.config().embedding_dim, _TRAINING.seed),
        start_from_combined=_STUDENT_START.from_combined(_MODEL.init_from),
        split=_SPLIT.value,
        processes=_PROCESSES.value,
        measure_speed=_MEASURE_SPEED.value,
        vertical_head=_VERTICAL_HEAD.value,
        export=_EXPORT.config(),
        redo_from=tuple(_REDO_FROM.value),
    )
    if _DRY_RUN.is_given:
        _tell_plan(config)
        return
    _TRAINING.start()
    result = run_pipeline(config)
    rows: list[tuple[str, object]] = []
    if result.evaluation and result.report:
        rows = _measured(run_dir, result.evaluation.directory)
        rows.append(("Report", result.report.directory / PAGE_FILE))
    else:
        rows = [("Measured", f"nothing: split {_SPLIT.value} answers no query")]
    tell_end(
        [
            *rows,
            ("SavedModel", f"{result.saved_model} (the student)"),
            ("TensorBoard", command("tensorboard", logdir=run_dir)),
            ("Next", command("tools/build_index.py", **_RUN.again)),
            ("Then", command("tools/serve_search.py", **_RUN.again)),
        ]
    )


def _tell_plan(config: PipelineConfig) -> None:
    """Prints what would be done, and how long it would take."""
    plan = plan_pipeline(config)
    plan.refuse()
    time = ""
    # With other processes a step would have to wait for theirs.
    if _MEASURE_SPEED.value and read_cluster() is None:
        _TRAINING.start()
        time = expected_time(plan.work, config.specialist, config.student, plan.train_pictures)
    print(plan.render(time))


def _measured(run_dir: Path, evaluation: Path) -> list[tuple[str, object]]:
    """Prints the tables of an evaluation; returns what the end tells of it."""
    print((evaluation / TABLES_FILE).read_text("utf-8"))
    summary = read_json(evaluation / SUMMARY_FILE)
    model, why = model_to_deploy(summary["rows"], summary["comparisons"])
    rows: list[tuple[str, object]] = [("Deploy", f"{model}, {why}" if model else why)]
    if model:
        export = command("tools/export_saved_model.py", **_RUN.again, stage=COMBINED)
        rows.append(("By" if model == COMBINED else "Or combined", export))
    return [
        *rows,
        ("Summary", evaluation / SUMMARY_FILE),
        ("Embeddings", evaluation / "embeddings"),
    ]


if __name__ == "__main__":
    app.run(main, goes_on=True)
