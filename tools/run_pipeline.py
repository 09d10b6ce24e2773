r"""Walks the whole way from pictures to one served embedding model.

    python tools/run_pipeline.py --flagfile=flags/quickstart.flags

draws synthetic garments, trains one specialist per vertical and, for comparison, one combined
model on all; exports the specialists' embeddings; trains one student on them; evaluates all on
the same queries; exports the student as a SavedModel; and writes a report of it all. With your
own pictures:

    python tools/run_pipeline.py --manifest=data/manifest.csv --run_dir=runs/mine \
      --backbone=efficientnet_lite_b0 --image_size=160

Called again it skips what is finished and goes on where it was interrupted. With --init_from=runs/x
trainings start from the models of an earlier run, e.g. one on more, but noisy pictures.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.data_flags import PrepareFlags, ProcessesFlag, SyntheticFlags
from apparel_embed.cli.grouping_flags import GroupingFlags
from apparel_embed.cli.run_flags import StudentStartFlag, measure_speed_flag
from apparel_embed.cli.target_flags import TargetFlags
from apparel_embed.cli.training_flags import (
    ModelFlags,
    SpecialistFlags,
    StudentFlags,
    TrainingFlags,
)
from apparel_embed.pipeline import PipelineConfig, run_pipeline
from apparel_embed.report.build import PAGE_FILE
from apparel_embed.stages import SUMMARY_FILE, TABLES_FILE

_RUN_DIR = flags.DEFINE_string("run_dir", None, "directory of the run", required=True)
_MANIFEST = flags.DEFINE_string(
    "manifest", None, "manifest, CSV or Parquet; without one, synthetic garments are drawn"
)
_GROUPING = GroupingFlags()
_COMPARE_SPECIALISTS = flags.DEFINE_bool(
    "compare_specialists",
    False,
    "train one specialist per vertical to compare with, whatever the groups; searches do anyway",
)
_TARGETS = TargetFlags()
_STUDENT_START = StudentStartFlag()
_SPLIT = flags.DEFINE_enum("split", "test", ["val", "test"], "split to evaluate on")
_MEASURE_SPEED = measure_speed_flag()
_PROCESSES = ProcessesFlag()
_SYNTHETIC = SyntheticFlags()
_PREPARE = PrepareFlags()
_MODEL = ModelFlags()
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_MODEL, _TRAINING)
_STUDENT = StudentFlags(_MODEL, _TRAINING)


def main() -> None:
    """Runs the pipeline and says what came of it."""
    _TRAINING.start()
    run_dir = Path(_RUN_DIR.value)
    result = run_pipeline(
        PipelineConfig(
            run_dir=run_dir,
            synthetic=None if _MANIFEST.value else _SYNTHETIC.config(),
            prepare=_PREPARE.config(Path(_MANIFEST.value or ""), run_dir / "prepared"),
            specialist=_SPECIALIST.config(),
            student=_STUDENT.config(),
            grouping=_GROUPING.config(),
            compare_specialists=_COMPARE_SPECIALISTS.value,
            align_to=_TARGETS.align_to,
            targets=_TARGETS.config(_TRAINING.input().augment, _TRAINING.seed),
            start_from_combined=_STUDENT_START.from_combined(_MODEL.init_from),
            split=_SPLIT.value,
            processes=_PROCESSES.value,
            measure_speed=_MEASURE_SPEED.value,
        )
    )
    evaluation = result.evaluation.directory
    print((evaluation / TABLES_FILE).read_text("utf-8"))
    print(f"Summary:      {evaluation / SUMMARY_FILE}")
    print(f"Embeddings:   {evaluation / 'embeddings'}")
    print(f"SavedModel:   {result.saved_model}")
    print(f"Report:       {result.report.directory / PAGE_FILE}")
    print(f"TensorBoard:  tensorboard --logdir={run_dir}")


if __name__ == "__main__":
    app.run(main)
