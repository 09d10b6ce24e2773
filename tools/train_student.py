r"""Trains one student that reproduces the specialists' embeddings.

    python tools/train_student.py --run_dir=runs/mine --prepared=data/prepared

It learns from all pictures that have a target, also from items seen only once.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.run_flags import RunFlags, StudentStartFlag
from apparel_embed.cli.training_flags import ModelFlags, StudentFlags, TrainingFlags
from apparel_embed.runs import open_stage
from apparel_embed.stages import STUDENT
from apparel_embed.student_stages import TARGETS, student_stage

_RUN = RunFlags()
_TARGETS = flags.DEFINE_string("targets", TARGETS, "stage of the targets to learn")
_STAGE = flags.DEFINE_string("stage", STUDENT, "name of the student's stage")
_START = StudentStartFlag()
_MODEL = ModelFlags()
_TRAINING = TrainingFlags()
_STUDENT = StudentFlags(_MODEL, _TRAINING)


def main() -> None:
    """Trains the student and says where it is."""
    _TRAINING.start()
    targets = open_stage(_RUN.run_dir / _TARGETS.value)
    stage = student_stage(
        _RUN.run_dir,
        _RUN.dataset(),
        targets,
        _STUDENT.config(),
        _START.stage(_RUN, _MODEL.init_from),
        name=_STAGE.value,
    )
    score = stage.result["validation_r_at_1"]
    print(f"Model:        {stage.directory / 'model'}")
    print(f"Kept:         step {stage.result['kept_step']}", end="")
    print("" if score is None else f", validation R@1 {score:.3f}")
    print(f"TensorBoard:  tensorboard --logdir={_RUN.run_dir}")
    print(f"Next:         python tools/evaluate.py --run_dir={_RUN.run_dir}")


if __name__ == "__main__":
    app.run(main)
