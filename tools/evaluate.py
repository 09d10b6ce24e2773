r"""Evaluates all models of a run on the same queries.

    python tools/evaluate.py --run_dir=runs/mine --prepared=data/prepared

Writes <run_dir>/evaluation/summary.json, the same as a table, each model's embeddings, and
<run_dir>/report/index.html, which shows all that is known of the run. What TensorBoard shows of it,
the worst queries and the Embedding Projector, is in <run_dir>/summaries.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.evaluation_flags import (
    bootstrap_seed_flag,
    measure_speed_flag,
    split_flag,
)
from apparel_embed.cli.model_flags import InitWeightsFlag
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag
from apparel_embed.cli.serving_flags import vertical_head_flag
from apparel_embed.report.build import PAGE_FILE
from apparel_embed.runs.run import Run, shown_in_report
from apparel_embed.runs.stages.evaluation import (
    SUMMARY_FILE,
    TABLES_FILE,
    Models,
    evaluation_stage,
)
from apparel_embed.runs.stages.registry import STAGES
from apparel_embed.runs.stages.report import report_stage
from apparel_embed.runs.stages.saved_model import latest_saved_model
from apparel_embed.runs.stages.specialist import single_specialists
from apparel_embed.runs.stages.summaries import summaries_stage
from apparel_embed.runs.stages.vertical_head import vertical_head_stage
from apparel_embed.serving.versions import SAVED_MODEL
from apparel_embed.store.names import COMBINED, STUDENT, VERTICAL_HEAD

_RUN = RunFlags()
_SPECIALISTS = SpecialistsFlag()
_COMBINED = flags.DEFINE_string(
    "combined", COMBINED, "stage of the triplet model on all verticals, or none"
)
_STUDENT = flags.DEFINE_string("student", STUDENT, "stage of the student, or none")
_SPLIT = split_flag()
_SEED = bootstrap_seed_flag()
_INIT_WEIGHTS = InitWeightsFlag()
_MEASURE_SPEED = measure_speed_flag()
_VERTICAL_HEAD = vertical_head_flag()


def main() -> None:
    """Evaluates, prints the tables, and writes the report."""
    run, head = Run(_RUN.run_dir, _RUN.dataset()), None
    models = Models(
        specialists=single_specialists(run),
        grouped=_SPECIALISTS.stages(_RUN),
        combined=_RUN.stage(_COMBINED.value),
        student=_RUN.stage(_STUDENT.value),
    )
    wanted = _VERTICAL_HEAD.value
    if not _VERTICAL_HEAD.present:
        wanted = run.find(VERTICAL_HEAD) is not None
    if models.student and wanted:
        head = vertical_head_stage(run, models.student)
    stage = evaluation_stage(
        run,
        models,
        split=_SPLIT.value,
        init_weights=_INIT_WEIGHTS.value,
        seed=_SEED.value,
        vertical_head=head,
    )
    report = report_stage(
        run,
        stage,
        models,
        export=latest_saved_model(_RUN.run_dir / SAVED_MODEL),
        shown=shown_in_report(run, STAGES),
        measure_speed=_MEASURE_SPEED.value,
    )
    summaries_stage(run, stage)
    print((stage.directory / TABLES_FILE).read_text("utf-8"))
    print_summary(
        [
            ("Summary", stage.directory / SUMMARY_FILE),
            ("Embeddings", stage.directory / "embeddings"),
            ("Report", report.directory / PAGE_FILE),
            ("TensorBoard", command("tensorboard", logdir=_RUN.run_dir)),
            ("Next", command("tools/export_saved_model.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main, goes_on=True)
