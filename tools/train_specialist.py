r"""Trains an embedding model on a group of verticals with a triplet loss.

    python tools/train_specialist.py --run_dir=runs/mine --prepared=data/prepared \
      --verticals=dress,skirt

The model is written to <run_dir>/specialist-dress+skirt/model. It starts from the combined model,
which must be trained first:

    python tools/train_specialist.py --run_dir=runs/mine --prepared=data/prepared \
      --verticals=all --stage=combined-start --specialist_steps=450

--specialist_steps is the number of steps for each vertical: with eight verticals, this combined
model trains for 3,600. The one for comparison takes as many further steps as all other trainings
together:

    python tools/train_specialist.py --run_dir=runs/mine --prepared=data/prepared \
      --verticals=all --stage=combined --specialist_steps=750
"""

from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.cli.ending import command, print_summary, training_rows
from apparel_embed.cli.run_flags import StageRunFlags
from apparel_embed.cli.target_flags import StartFlag
from apparel_embed.cli.training_flags import SpecialistFlags, TrainingFlags
from apparel_embed.store.names import COMBINED_START

_RUN = StageRunFlags()
_VERTICALS = define(
    "verticals", None, "comma-separated verticals of the group, or all", kind=tuple, required=True
)
_STAGE = define("stage", None, "name of the stage; by default specialist-<verticals joined by +>")
_START = StartFlag("specialist")
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_TRAINING)


def main() -> None:
    """Trains the specialist and prints a summary."""
    from apparel_embed.runs.stages.specialist import specialist_stage

    if not _RUN.is_dry:
        _TRAINING.start()
    run = _RUN.run()
    verticals = run.dataset.verticals if _VERTICALS.value == ["all"] else _VERTICALS.value
    stage = specialist_stage(
        run,
        verticals,
        _SPECIALIST.config().for_verticals(len(set(verticals))),
        _STAGE.value,
        None if _STAGE.value == COMBINED_START else _START.stage(_RUN, _TRAINING.init_from),
    )
    if not _RUN.print_plan():
        print_summary(
            [*training_rows(stage), ("Next", command("tools/export_targets.py", **_RUN.again))]
        )


if __name__ == "__main__":
    app.run(main, resumes=True)
