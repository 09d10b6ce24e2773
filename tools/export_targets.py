r"""Embeds every training picture with its group's specialist: what the student learns from.

    python tools/export_targets.py --run_dir=runs/mine --prepared=data/prepared

Each specialist's space is first rotated onto that of a reference model (--align_to), so that the
student need not learn a different map for each vertical; distances within a group do not change.
"""

from __future__ import annotations

from apparel_embed.cli import app
from apparel_embed.cli.run_flags import RunFlags, SpecialistsFlag, align_to_flag
from apparel_embed.stages import TARGETS_FILE, targets_stage

_RUN = RunFlags()
_SPECIALISTS = SpecialistsFlag()
_ALIGN_TO = align_to_flag()


def main() -> None:
    """Exports the targets and says where they are."""
    stage = targets_stage(
        _RUN.run_dir, _RUN.dataset(), _SPECIALISTS.stages(_RUN), _ALIGN_TO.stage(_RUN)
    )
    print(f"Targets:  {stage.directory / TARGETS_FILE} ({stage.result['pictures']} pictures)")
    for entry in stage.result["specialists"]:
        if "cosine_after" in entry:
            print(
                f"  {', '.join(entry['verticals'])}: mean cosine to the reference "
                f"{entry['cosine_before']:.2f} before the rotation, {entry['cosine_after']:.2f} "
                "after"
            )
    print(f"Next:     python tools/train_student.py --run_dir={_RUN.run_dir}")


if __name__ == "__main__":
    app.run(main)
