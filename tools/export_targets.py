r"""Embeds every training picture with its group's specialist: what the student learns from.

    python tools/export_targets.py --run_dir=runs/mine --prepared=data/prepared

Pictures of split unlabelled are embedded too, unless --nouse_unlabelled says otherwise.

Each specialist's space is first rotated onto that of a reference (--align_to), so that the
student need not learn a different map for each vertical; distances within a group do not change.
With --align_to=student the reference is an earlier student:

    python tools/export_targets.py --run_dir=runs/mine --align_to=none --stage=targets-unaligned
    python tools/train_student.py --run_dir=runs/mine --targets=targets-unaligned \
      --stage=student-unaligned
    python tools/export_targets.py --run_dir=runs/mine --align_to=student
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.augment_flags import AugmentFlags
from apparel_embed.cli.define import define_seed
from apparel_embed.cli.dry_run_flags import DryRunFlag
from apparel_embed.cli.ending import command, tell_end
from apparel_embed.cli.model_flags import InitWeightsFlag
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag
from apparel_embed.cli.target_flags import TargetFlags
from apparel_embed.student_stages import TARGETS, TARGETS_FILE, find_reference, targets_stage

_RUN = RunFlags()
_DRY_RUN = DryRunFlag()
_SPECIALISTS = SpecialistsFlag()
_TARGETS = TargetFlags()
_AUGMENT = AugmentFlags()
_STAGE = flags.DEFINE_string("stage", TARGETS, "name of the stage")
_INIT_WEIGHTS = InitWeightsFlag()
_SEED = define_seed("views, and of the random weights of --align_to=frozen")


def main() -> None:
    """Exports the targets and says where they are."""
    dataset, specialists = _RUN.dataset(), _SPECIALISTS.stages(_RUN)
    reference = find_reference(
        _TARGETS.align_to,
        _RUN.run_dir,
        dataset,
        specialists,
        init_weights=_INIT_WEIGHTS.value,
        seed=_SEED.value,
    )
    config = _TARGETS.config(_AUGMENT.config(), _SEED.value)
    stage = targets_stage(
        _RUN.run_dir,
        dataset,
        specialists,
        reference,
        config,
        _STAGE.value,
        access=_DRY_RUN.access(_RUN.run_dir, dataset),
    )
    if _DRY_RUN.has_told():
        return
    # A stage of an earlier release does not tell, and had none.
    unlabelled = stage.result.get("unlabelled", 0)
    among = f", {unlabelled} of them unlabelled" if unlabelled else ""
    pictures = f"{stage.result['pictures']} pictures{among}"
    for entry in stage.result["specialists"]:
        if "cosine_after" in entry:
            print(
                f"{', '.join(entry['verticals'])}: mean cosine to the reference "
                f"{entry['cosine_before']:.2f} before the rotation, {entry['cosine_after']:.2f} "
                "after"
            )
    further = {"embedding_dim": stage.result["dim"]} if config.separation else {}
    tell_end(
        [
            ("Targets", f"{stage.directory / TARGETS_FILE} ({pictures})"),
            ("Next", command("tools/train_student.py", **_RUN.again, **further)),
        ]
    )


if __name__ == "__main__":
    app.run(main)
