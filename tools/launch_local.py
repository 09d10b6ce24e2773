r"""Starts several processes on this machine that train one model together.

    python tools/launch_local.py --workers=2 -- python tools/train_specialist.py \
      --strategy=multi_worker --run_dir=runs/mine --verticals=dress,skirt --specialist_start=none

Each process runs the same command with TF_CONFIG in its environment, which lists all processes and
the index of this one. Each line of output begins with the name of its process. Only worker 0, the
chief, writes to the run directory. If one process fails, all are stopped.
docs/kubernetes/train_job.yaml does the same on a cluster.
"""

import functools
import sys

from apparel_embed.cli import app
from apparel_embed.cli.define import define
from apparel_embed.common.errors import UserError
from apparel_embed.runs.launch import launch_local

_WORKERS = define("workers", 2, "processes to start", 1, 64)
_GRACE_SECONDS = define(
    "grace_seconds",
    10.0,
    "seconds that the other processes have to exit after one has failed, before they are killed",
    0.0,
    3600.0,
)


def main(command: list[str]) -> None:
    """Runs the command in all processes."""
    if not command:
        raise UserError("no command; give one after --, as in -- python tools/...")
    launch_local(command, _WORKERS.value, _GRACE_SECONDS.value)
    who = "The process has" if _WORKERS.value == 1 else f"All {_WORKERS.value} processes have"
    print(f"{who} finished without an error; the result is in the output of worker 0")


if __name__ == "__main__":
    # Arguments after the first -- are the command, not flags of this binary.
    _PLACE = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    _COMMAND = sys.argv[_PLACE + 1 :]
    del sys.argv[_PLACE:]
    app.run(functools.partial(main, _COMMAND))
