r"""Plots accuracy against the number of verticals that share a model.

    python tools/sweep_group_size.py --run_dir=runs/mine --sizes=1,2,4,8 --partitions=2 \
      --seeds=0,1,2

For each size, the verticals are split at random into as few groups of at most that size as
possible. For each group, a triplet model and a student of the group's specialists are trained.
Groups have equal sizes if possible: size 4 splits 6 verticals into two groups of 3, and the curve
shows them at 3. Every size is measured on all verticals' queries. Writes <run_dir>/sweep/sweep.json
and curve.png; models are trained once, in <run_dir>/sweep-models. With different --sizes,
--partitions, --seeds or --split the curve is drawn again, and only missing models are trained.

Students also learn from images of split unlabelled, which no triplet model sees, unless
--nouse_unlabelled is given.
"""

from apparel_embed.cli import app
from apparel_embed.cli.define import ConfigFlags
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.run_flags import StageRunFlags
from apparel_embed.cli.training_flags import SpecialistFlags, StudentFlags, TrainingFlags
from apparel_embed.runs.config import SweepConfig

_RUN = StageRunFlags()
_SWEEP = ConfigFlags(SweepConfig)
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_TRAINING)
_STUDENT = StudentFlags(_TRAINING)


def main() -> None:
    """Trains and evaluates the models, draws the curve and prints a summary."""
    from apparel_embed.report.sweep import CURVE_FILE, SWEEP_FILE
    from apparel_embed.runs.stages.sweep import sweep_stage

    configs = _SWEEP.config(), _SPECIALIST.config(), _STUDENT.config()
    if not _RUN.is_dry:
        _TRAINING.start()
    stage = sweep_stage(_RUN.run(), *configs)
    if _RUN.print_plan():
        return
    for row in stage.result["rows"]:
        print(
            f"{row['group_size']:5.4g} verticals, {row['model']:8s} R@1 {row['r_at_1']:.3f} "
            f"[{row['r_at_1_low']:.3f}, {row['r_at_1_high']:.3f}] over {row['queries']} queries, "
            f"{len(row['repeats'])} repeats"
        )
    print_summary(
        [
            ("Figures", stage.directory / SWEEP_FILE),
            ("Curve", stage.directory / CURVE_FILE),
            ("Report", "updated by the next command"),
            ("Next", command("tools/evaluate.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main, resumes=True)
