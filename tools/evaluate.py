r"""Evaluates all models of a run on the same queries.

    python tools/evaluate.py --run_dir=runs/mine --prepared=data/prepared

Writes <run_dir>/evaluation/summary.json, the same results as a table, each model's embeddings, and
<run_dir>/report/index.html, the report on the whole run. The worst queries and the Embedding
Projector, for TensorBoard, are in <run_dir>/summaries.
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.define import EVALUATION, ConfigFlags, define, define_seed
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag
from apparel_embed.cli.training_flags import EmbeddingFlags, init_weights_flag
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.runs.config import GrowthConfig, PipelineConfig, VerticalHeadConfig
from apparel_embed.runs.run import shown_in_report
from apparel_embed.serving.exported import SAVED_MODEL
from apparel_embed.store.names import (
    COMBINED,
    COMBINED_START,
    DETECTOR,
    PHOTOGRAPHS,
    STUDENT,
    VERTICAL_HEAD,
)
from apparel_embed.store.record import open_stage

_RUN = RunFlags()
_SPECIALISTS = SpecialistsFlag()
_COMBINED = define("combined", COMBINED, "stage of the triplet model on all verticals, or none")
_STUDENT = define("student", STUDENT, "stage of the student, or none")
_PIPELINE = ConfigFlags(PipelineConfig, only=("split", "measure_speed"))
_HEAD = ConfigFlags(VerticalHeadConfig)
_PHOTOGRAPHS = define(
    "prepared_photographs",
    None,
    "photographs to measure the run's detector on, if it has one, prepared with --photographs; by "
    f"default <run_dir>/{PHOTOGRAPHS}",
    group=EVALUATION,
)
_GALLERY_MODEL = define(
    "gallery_model",
    None,
    "stage of an earlier run's student, such as runs/old/student: the student's queries are also "
    "searched among its embeddings; by default that of the last evaluation, or the student that "
    "this one is aligned to",
    group=EVALUATION,
)
_GROWTH = ConfigFlags(GrowthConfig, EVALUATION, only=("growth_compare_to",))
_SEED = define_seed("the bootstrap", group=EVALUATION)
_INIT_WEIGHTS = init_weights_flag()
_EMBEDDING = EmbeddingFlags()


def main() -> None:
    """Evaluates the models, prints the tables and writes the report."""
    _EMBEDDING.start()
    from apparel_embed.report.build import PAGE_FILE
    from apparel_embed.runs.stages.evaluation import (
        SUMMARY_FILE,
        TABLES_FILE,
        Models,
        Street,
        evaluation_stage,
        weights_of,
    )
    from apparel_embed.runs.stages.growth import find_growth, full_student, is_grown
    from apparel_embed.runs.stages.registry import STAGES
    from apparel_embed.runs.stages.report import report_stage
    from apparel_embed.runs.stages.saved_model import latest_saved_model
    from apparel_embed.runs.stages.specialist import single_specialists
    from apparel_embed.runs.stages.summaries import summaries_stage
    from apparel_embed.runs.stages.vertical_head import vertical_head_stage

    given = _PIPELINE.values()
    run, head = _RUN.run(), None
    models = Models(student=_RUN.stage(_STUDENT.value))
    if not is_grown(run):
        models = Models(
            specialists=single_specialists(run),
            grouped=_SPECIALISTS.stages(_RUN),
            combined=_RUN.stage(_COMBINED.value),
            student=models.student,
        )
    init_weights = _INIT_WEIGHTS.value
    if not _INIT_WEIGHTS.present:
        init_weights = weights_of([run.find(COMBINED_START), *models.stages])
    earlier = open_stage(Path(_GALLERY_MODEL.value)) if _GALLERY_MODEL.value else None
    full = full_student(_GROWTH.values()["growth_compare_to"])
    wanted = _HEAD.config().vertical_head
    if not _HEAD.is_given("vertical_head"):
        wanted = run.find(VERTICAL_HEAD) is not None
    if models.student and wanted:
        head = vertical_head_stage(run, models.student)
    detector, photographs = (
        run.find(DETECTOR),
        Path(_PHOTOGRAPHS.value or run.directory / PHOTOGRAPHS),
    )
    stage = evaluation_stage(
        run,
        models,
        split=given["split"],
        init_weights=init_weights,
        seed=_SEED.value,
        vertical_head=head,
        street=Street(detector, PreparedDataset.open(photographs)) if detector else None,
        growth=find_growth(run, earlier, full),
    )
    report = report_stage(
        run,
        stage,
        models,
        export=latest_saved_model(_RUN.run_dir / SAVED_MODEL),
        shown=shown_in_report(run, STAGES),
        measure_speed=given["measure_speed"],
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
    app.run(main, resumes=True)
