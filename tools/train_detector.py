r"""Trains a detector of the garments in a photograph.

    python tools/prepare_dataset.py --photographs --manifest=data/manifest.csv \
      --output=data/photographs
    python tools/train_detector.py --run_dir=runs/mine --prepared_photographs=data/photographs

It learns from the manifest's boxes. tools/run_pipeline.py --detector does both steps. The detector
is written to <run_dir>/detector/model; tools/evaluate.py measures it, and
tools/export_saved_model.py exports it together with the run's embedding model.
"""

from pathlib import Path

from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.run_flags import RunFlag
from apparel_embed.cli.shared_flags import dry_run_flag
from apparel_embed.cli.training_flags import DetectorFlags, TrainingFlags
from apparel_embed.data.prepared import PreparedDataset
from apparel_embed.runs.plan import StagePlan
from apparel_embed.runs.run import Run
from apparel_embed.store.names import PHOTOGRAPHS, STUDENT
from apparel_embed.store.record import Stage, open_stage

_RUN = RunFlag()
_PHOTOGRAPHS = define(
    "prepared_photographs",
    None,
    f"photographs, prepared with --photographs; by default <run_dir>/{PHOTOGRAPHS}",
)
_START = define(
    "detector_start",
    None,
    "stage of the embedding model whose backbone the detector starts from, or none; by default "
    f"{STUDENT}, if the run has one with the same --detector_backbone",
)
_DRY_RUN = dry_run_flag()
_TRAINING = TrainingFlags(of_embeddings=False)
_DETECTOR = DetectorFlags(_TRAINING)


def main() -> None:
    """Trains the detector and prints a summary."""
    from apparel_embed.runs.stages.detector import detector_stage

    photographs = PreparedDataset.open(Path(_PHOTOGRAPHS.value or _RUN.run_dir / PHOTOGRAPHS))
    run = Run(_RUN.run_dir, photographs)
    if _DRY_RUN.value:
        plan = StagePlan(_RUN.run_dir)
        planned = Run(_RUN.run_dir, photographs, plan.access)
        detector_stage(planned, photographs, _DETECTOR.config(), _start(run))
        print(plan.render())
        return
    _TRAINING.start()
    stage = detector_stage(run, photographs, _DETECTOR.config(), _start(run))
    found = stage.result["validation_ap50"]
    print_summary(
        [
            ("Detector", stage.directory / "model"),
            ("Verticals", ", ".join(stage.result["verticals"])),
            ("AP50 on val", "not measured: no photographs" if found is None else f"{found:.3f}"),
            ("Next", command("tools/evaluate.py", **_RUN.again)),
            ("Then", command("tools/export_saved_model.py", **_RUN.again)),
        ]
    )


def _start(run: Run) -> Stage | None:
    """Returns the stage of the embedding model to start from."""
    if _START.value == "none":
        return None
    return open_stage(run.directory / _START.value) if _START.value else run.find(STUDENT)


if __name__ == "__main__":
    app.run(main, resumes=True)
