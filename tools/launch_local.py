r"""Starts several processes on this machine that train together.

    python tools/launch_local.py --workers=2 -- python tools/train_specialist.py \
      --strategy=multi_worker --run_dir=runs/mine --verticals=dress,skirt --specialist_start=none

Each process gets the same command, and in its environment TF_CONFIG, which lists all processes and
says which one this is. Each line of output begins with the name of its process. Only worker 0, the
chief, writes to the run directory. If one process fails, all are ended.
docs/kubernetes/train_job.yaml shows the same on a cluster.
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
    "how long the others may take to end when one has failed, before they are killed, in seconds",
    0.0,
    3600.0,
)


def main(command: list[str]) -> None:
    """Runs the command in all processes."""
    if not command:
        raise UserError("there is no command: give it behind --, as in -- python tools/...")
    launch_local(command, _WORKERS.value, _GRACE_SECONDS.value)
    who = "The process has" if _WORKERS.value == 1 else f"All {_WORKERS.value} processes have"
    print(f"{who} finished without an error; the result is in the output of worker 0")


if __name__ == "__main__":
    # What follows the first -- is no flag of this binary.
    _PLACE = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    _COMMAND = sys.argv[_PLACE + 1 :]
    del sys.argv[_PLACE:]
    app.run(functools.partial(main, _COMMAND))
