r"""Finds which verticals can share a specialist.

    python tools/search_groups.py --run_dir=runs/mine --prepared=data/prepared \
      --grouping=affinity --budget_minutes=60

It starts from the combined model, which must be trained first (tools/train_specialist.py). A model
is trained on each candidate group. The group is accepted if no vertical is expected to fall more
than --grouping_tolerance below its own specialist, by R@1 on split val (docs/groups.md). Writes
<run_dir>/grouping-affinity/groups.json: the groups, every trial, and why each group was accepted or
rejected. After an interruption, the same command resumes. No training is done twice, not even by
tools/run_pipeline.py with the same flags.
"""

from apparel_embed.cli import app
from apparel_embed.cli.ending import command, print_summary
from apparel_embed.cli.grouping_flags import GroupingFlags
from apparel_embed.cli.run_flags import StageRunFlags
from apparel_embed.cli.target_flags import StartFlag
from apparel_embed.cli.training_flags import SpecialistFlags, TrainingFlags
from apparel_embed.common.files import read_json
from apparel_embed.grouping.search import render_search

_RUN = StageRunFlags()
_GROUPING = GroupingFlags(default="affinity")
_START = StartFlag("specialist")
_TRAINING = TrainingFlags()
_SPECIALIST = SpecialistFlags(_TRAINING)


def main() -> None:
    """Searches for groups and prints the result."""
    from apparel_embed.runs.stages.grouping import GROUPS_FILE, grouping_stage

    search, training = _GROUPING.config(), _SPECIALIST.config()
    start = _START.stage(_RUN, _TRAINING.init_from)
    if not _RUN.is_dry:
        _TRAINING.start()
    run = _RUN.run()
    stage = grouping_stage(run, search, training, start)
    if _RUN.print_plan():
        return
    groups = stage.directory / GROUPS_FILE
    print(render_search(read_json(groups)))
    print_summary([("Groups", groups), ("Next", command("tools/export_targets.py", **_RUN.again))])


if __name__ == "__main__":
    app.run(main, resumes=True)
