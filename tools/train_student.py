r"""Trains one student to reproduce the specialists' embeddings.

    python tools/train_student.py --run_dir=runs/mine --prepared=data/prepared

It learns from all images that have a target, including items with a single image.
"""

from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.cli.ending import command, print_summary, training_rows
from apparel_embed.cli.run_flags import StageRunFlags
from apparel_embed.cli.target_flags import StartFlag
from apparel_embed.cli.training_flags import StudentFlags, TrainingFlags
from apparel_embed.store.names import STUDENT, TARGETS
from apparel_embed.store.record import open_stage

_RUN = StageRunFlags()
_TARGETS = define("targets", TARGETS, "stage whose targets to learn")
_STAGE = define("stage", STUDENT, "name of the student's stage")
_START = StartFlag("student")
_TRAINING = TrainingFlags()
_STUDENT = StudentFlags(_TRAINING)


def main() -> None:
    """Trains the student and prints a summary."""
    from apparel_embed.runs.stages.student import student_stage

    if not _RUN.is_dry:
        _TRAINING.start()
    run = _RUN.run()
    stage = student_stage(
        run,
        open_stage(_RUN.run_dir / _TARGETS.value),
        _STUDENT.config(),
        _START.stage(_RUN, _TRAINING.init_from),
        name=_STAGE.value,
    )
    if not _RUN.print_plan():
        print_summary([*training_rows(stage), ("Next", command("tools/evaluate.py", **_RUN.again))])


if __name__ == "__main__":
    app.run(main, resumes=True)
