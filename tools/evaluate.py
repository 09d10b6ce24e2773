r"""Evaluates all models of a run on the same queries.

    python tools/evaluate.py --run_dir=runs/mine --prepared=data/prepared

Writes <run_dir>/evaluation/summary.json, the same as a table, each model's embeddings, and
<run_dir>/report/index.html, which shows all that is known of the run. What TensorBoard shows of it,
the worst queries and the Embedding Projector, is in <run_dir>/summaries.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.ending import command, tell_end
from apparel_embed.cli.evaluation_flags import (
    bootstrap_seed_flag,
    measure_speed_flag,
    split_flag,
)
from apparel_embed.cli.model_flags import InitWeightsFlag
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag
from apparel_embed.cli.serving_flags import vertical_head_flag
from apparel_embed.report.build import PAGE_FILE
from apparel_embed.runs.stages.serving import (
    VERTICAL_HEAD,
    latest_saved_model,
    vertical_head_stage,
)
from apparel_embed.runs.stages.summaries import summaries_stage
from apparel_embed.runs.stages.training import (
    COMBINED,
    STUDENT,
    SUMMARY_FILE,
    TABLES_FILE,
    evaluation_stage,
    report_stage,
    single_specialists,
)
from apparel_embed.serving.saved_model import SAVED_MODEL
from apparel_embed.store.record import find_stage

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
    dataset = _RUN.dataset()
    models = {
        "specialists": single_specialists(_RUN.run_dir, dataset.verticals),
        "grouped": _SPECIALISTS.stages(_RUN),
        "combined": _RUN.stage(_COMBINED.value),
        "student": _RUN.stage(_STUDENT.value),
    }
    student, head = models["student"], None
    wanted = _VERTICAL_HEAD.value
    if not _VERTICAL_HEAD.present:
        wanted = find_stage(_RUN.run_dir / VERTICAL_HEAD) is not None
    if student and wanted:
        head = vertical_head_stage(_RUN.run_dir, dataset, student)
    stage = evaluation_stage(
        _RUN.run_dir,
        dataset,
        split=_SPLIT.value,
        **models,
        init_weights=_INIT_WEIGHTS.value,
        seed=_SEED.value,
        vertical_head=head,
    )
    report = report_stage(
        _RUN.run_dir,
        dataset,
        stage,
        **models,
        export=latest_saved_model(_RUN.run_dir / SAVED_MODEL),
        measure_speed=_MEASURE_SPEED.value,
    )
    summaries_stage(_RUN.run_dir, dataset, stage)
    print((stage.directory / TABLES_FILE).read_text("utf-8"))
    tell_end(
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
