r"""Embeds every training picture with its group's specialist: what the student learns from.

    python tools/export_targets.py --run_dir=runs/mine --prepared=data/prepared

Pictures of split unlabelled are embedded too, unless --nouse_unlabelled says otherwise.

Each specialist's space is first rotated onto that of a reference (--align_to), so that the
student need not learn a different map for each vertical; distances within a group do not change.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.define import define_seed
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import command, tell_end
from apparel_embed.cli.model_flags import InitWeightsFlag
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag
from apparel_embed.cli.target_flags import TargetFlags
from apparel_embed.evaluation.table import render_teachers
from apparel_embed.runs.stages.student import TARGETS, TARGETS_FILE, find_reference, targets_stage
from apparel_embed.runs.stages.training import student_teachers

_RUN = RunFlags()
_DRY_RUN = DryRunFlag()
_SPECIALISTS = SpecialistsFlag()
_TARGETS = TargetFlags()
_STAGE = flags.DEFINE_string("stage", TARGETS, "name of the stage")
_INIT_WEIGHTS = InitWeightsFlag()
_SEED = define_seed("the choice of teachers, and of the random weights of --align_to=frozen")


def main() -> None:
    """Exports the targets and says where they are."""
    dataset, specialists = _RUN.dataset(), _SPECIALISTS.stages(_RUN)
    reference = find_reference(
        _TARGETS.align_to,
        _RUN.run_dir,
        specialists,
        init_weights=_INIT_WEIGHTS.value,
        seed=_SEED.value,
    )
    stage = targets_stage(
        _RUN.run_dir,
        dataset,
        student_teachers(_RUN.run_dir, dataset.verticals, specialists),
        reference,
        _TARGETS.config(specialists[0].flags["model"]["embedding_dim"], _SEED.value),
        _STAGE.value,
        access=_DRY_RUN.access(_RUN.run_dir, dataset),
    )
    if _DRY_RUN.has_told():
        return
    unlabelled = stage.result["unlabelled"]
    among = f", {unlabelled} of them unlabelled" if unlabelled else ""
    print(render_teachers(stage.result))
    tell_end(
        [
            (
                "Targets",
                f"{stage.directory / TARGETS_FILE} ({stage.result['pictures']} pictures{among})",
            ),
            ("Next", command("tools/train_student.py", **_RUN.again)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
