r"""Embeds every training picture with its group's specialist: what the student learns from.

    python tools/export_targets.py --run_dir=runs/mine --prepared=data/prepared

Each specialist's space is first rotated onto that of a reference model (--align_to), so that the
student need not learn a different map for each vertical; distances within a group do not change.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag
from apparel_embed.stages import COMBINED, TARGETS_FILE, targets_stage

_RUN = RunFlags()
_SPECIALISTS = SpecialistsFlag()
_ALIGN_TO = flags.DEFINE_string(
    "align_to", COMBINED, "stage of the model onto whose space targets are rotated, or none"
)


def main() -> None:
    """Exports the targets and says where they are."""
    stage = targets_stage(
        _RUN.run_dir, _RUN.dataset(), _SPECIALISTS.stages(_RUN), _RUN.stage(_ALIGN_TO.value)
    )
    print(f"Targets:  {stage.directory / TARGETS_FILE} ({stage.result['pictures']} pictures)")
    for entry in stage.result["specialists"]:
        if "cosine_after" in entry:
            print(
                f"  {', '.join(entry['verticals'])}: mean cosine to {_ALIGN_TO.value} "
                f"{entry['cosine_before']:.2f} before the rotation, {entry['cosine_after']:.2f} "
                "after"
            )
    print(f"Next:     python tools/train_student.py --run_dir={_RUN.run_dir}")


if __name__ == "__main__":
    app.run(main)
