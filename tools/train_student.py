r"""Trains one student that reproduces the specialists' embeddings.

    python tools/train_student.py --run_dir=runs/mine --prepared=data/prepared

It learns from all pictures that have a target, also from items seen only once.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import command, print_summary, rows_of_training
from apparel_embed.cli.model_flags import ModelFlags
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.cli.target_flags import StudentStartFlag
from apparel_embed.cli.training_flags import StudentFlags, TrainingFlags
from apparel_embed.runs.stages.student import student_stage
from apparel_embed.store.names import STUDENT, TARGETS
from apparel_embed.store.record import open_stage

_RUN = RunFlags()
_TARGETS = flags.DEFINE_string("targets", TARGETS, "stage of the targets to learn")
_STAGE = flags.DEFINE_string("stage", STUDENT, "name of the student's stage")
_START = StudentStartFlag()
_DRY_RUN = DryRunFlag()
_MODEL = ModelFlags()
_TRAINING = TrainingFlags()
_STUDENT = StudentFlags(_MODEL, _TRAINING)


def main() -> None:
    """Trains the student and says where it is."""
    if not _DRY_RUN.is_given:
        _TRAINING.start()
    run = _DRY_RUN.run(_RUN.run_dir, _RUN.dataset())
    targets = open_stage(_RUN.run_dir / _TARGETS.value)
    stage = student_stage(
        run,
        targets,
        _STUDENT.config(),
        _START.stage(_RUN, _MODEL.init_from),
        name=_STAGE.value,
    )
    if _DRY_RUN.has_told():
        return
    print_summary(
        [
            *rows_of_training(stage),
            ("TensorBoard", command("tensorboard", logdir=_RUN.run_dir)),
            ("Next", command("tools/evaluate.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main, goes_on=True)
