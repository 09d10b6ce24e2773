r"""Computes the student's targets: its teachers' embeddings of the images.

    python tools/export_targets.py --run_dir=runs/mine --prepared=data/prepared

Images of split unlabelled are embedded too, unless --nouse_unlabelled is given.

Each specialist's embedding space is first rotated onto that of a reference (--align_to), so that
the student need not learn a different map for each vertical; distances in a group do not change.
"""

from apparel_embed.cli import app
from apparel_embed.cli.define import define, define_seed
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.run_flags import SpecialistsFlag, StageRunFlags
from apparel_embed.cli.target_flags import TargetFlags
from apparel_embed.cli.training_flags import EmbeddingFlags, init_weights_flag
from apparel_embed.store.names import TARGETS

_RUN = StageRunFlags()
_SPECIALISTS = SpecialistsFlag()
_TARGETS = TargetFlags()
_STAGE = define("stage", TARGETS, "name of the stage")
_INIT_WEIGHTS = init_weights_flag()
_SEED = define_seed("the choice of teachers, and of the random weights of --align_to=frozen")
_EMBEDDING = EmbeddingFlags()


def main() -> None:
    """Exports the targets and prints a summary."""
    _EMBEDDING.start()
    from apparel_embed.evaluation.table import render_teachers
    from apparel_embed.runs.stages.targets import (
        TARGETS_FILE,
        find_reference,
        student_teachers,
        targets_stage,
    )

    run = _RUN.run()
    specialists = _SPECIALISTS.stages(_RUN)
    reference = find_reference(
        _TARGETS.align_to, run, specialists, init_weights=_INIT_WEIGHTS.value, seed=_SEED.value
    )
    stage = targets_stage(
        run,
        student_teachers(run, specialists),
        reference,
        _TARGETS.config(specialists[0].flags["model"]["embedding_dim"], _SEED.value),
        _STAGE.value,
    )
    if _RUN.print_plan():
        return
    unlabelled = stage.result["unlabelled"]
    among = f", {unlabelled} of them unlabelled" if unlabelled else ""
    print(render_teachers(stage.result))
    print_summary(
        [
            (
                "Targets",
                f"{stage.directory / TARGETS_FILE} ({stage.result['images']} images{among})",
            ),
            ("Next", command("tools/train_student.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
