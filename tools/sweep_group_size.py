r"""Draws accuracy against the number of verticals that share a triplet model: the sweet spot.

    python tools/sweep_group_size.py --run_dir=runs/mine --sizes=1,2,4,8 --partitions=2 \
      --seeds=0,1,2

At each size the verticals are split at random into as few groups as have at most that many, and a
triplet model is trained for each group, beside a student of the group's specialists. Groups are as
equal as can be: of 6 verticals, size 4 makes two groups of 3, and the curve has them at 3. Every
size is measured on all verticals' queries. Writes <run_dir>/sweep/sweep.json and curve.png; models
are trained once, in <run_dir>/sweep-models. With other --sizes, --partitions, --seeds or another
--split the curve is drawn anew, and only models that are not there are trained.

Students learn from pictures of split unlabelled too, which no triplet model sees, unless
--nouse_unlabelled says otherwise.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.define import LARGEST_SEED, define_number, define_whole_numbers
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import command, tell_end
from apparel_embed.cli.evaluation_flags import split_flag
from apparel_embed.cli.model_flags import ModelFlags
from apparel_embed.cli.run_flags import RunFlags
from apparel_embed.cli.target_flags import unlabelled_flag
from apparel_embed.cli.training_flags import SpecialistFlags, StudentFlags, TrainingFlags
from apparel_embed.report.sweep import CURVE_FILE, SWEEP_FILE
from apparel_embed.runs.stages.sweep import (
    PER_MODEL,
    PER_VERTICAL,
    SweepConfig,
    plan_sweep,
    sweep_stage,
)

_RUN = RunFlags()
_DEFAULT = SweepConfig()
_SIZES = define_whole_numbers(
    "sizes",
    [str(size) for size in _DEFAULT.sizes],
    "most verticals that share a model; groups are as equal as can be, and sizes that make as many "
    "groups are one",
    1,
    1000,
)
_SEEDS = define_whole_numbers(
    "seeds",
    [str(seed) for seed in _DEFAULT.seeds],
    "seeds of the trainings; --seed is not used",
    0,
    LARGEST_SEED,
)
_PARTITIONS = define_number(
    "partitions",
    _DEFAULT.partitions,
    "different random partitions of the verticals at each size; where there are "
    "fewer, as at sizes one and all, each of them",
    1,
)
_STEPS = flags.DEFINE_enum(
    "sweep_steps",
    _DEFAULT.steps,
    [PER_VERTICAL, PER_MODEL],
    "per_vertical: a model's steps grow with its verticals, to --student_steps for a student of "
    "all; per_model: every triplet model has --specialist_steps, every student --student_steps",
)
_UNIFIED = flags.DEFINE_bool(
    "unified", _DEFAULT.unified, "train a student of the specialists of each group, too"
)
_UNLABELLED = unlabelled_flag()
_SPLIT = split_flag(_DEFAULT.split)
_DRY_RUN = DryRunFlag()
_MODEL = ModelFlags()
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_MODEL, _TRAINING)
_STUDENT = StudentFlags(_MODEL, _TRAINING)


def main() -> None:
    """Trains, evaluates and says where the curve is."""
    sweep = SweepConfig(
        sizes=tuple(int(size) for size in _SIZES.value),
        partitions=_PARTITIONS.value,
        seeds=tuple(int(seed) for seed in _SEEDS.value),
        steps=_STEPS.value,
        unified=_UNIFIED.value,
        unlabelled=_UNLABELLED.value,
        split=_SPLIT.value,
    )
    trainings = _SPECIALIST.config(), _STUDENT.config()
    if _DRY_RUN.is_given:
        print(plan_sweep(_RUN.run_dir, _RUN.dataset(), sweep, *trainings).render())
        return
    _TRAINING.start()
    stage = sweep_stage(_RUN.run_dir, _RUN.dataset(), sweep, *trainings)
    for row in stage.result["rows"]:
        print(
            f"{row['group_size']:5.4g} verticals, {row['model']:8s} R@1 {row['r_at_1']:.3f} "
            f"[{row['r_at_1_low']:.3f}, {row['r_at_1_high']:.3f}] over {row['queries']} queries, "
            f"{len(row['repeats'])} repeats"
        )
    tell_end(
        [
            ("Figures", stage.directory / SWEEP_FILE),
            ("Curve", stage.directory / CURVE_FILE),
            ("Report", "made anew by the next command"),
            ("Next", command("tools/evaluate.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main, goes_on=True)
