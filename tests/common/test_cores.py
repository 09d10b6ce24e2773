import os
import subprocess
import sys
from pathlib import Path

import pytest

from apparel_embed.common.cores import usable_cores

# Also prints the default of the flag that binaries use.
BOUND = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from absl import flags
from apparel_embed.cli.shared_flags import ProcessesFlag
from apparel_embed.common.cores import usable_cores
processes = ProcessesFlag()
flags.FLAGS(["binary"])
print(usable_cores(), processes.value)
"""


def test_without_core_affinity_all_cores_are_counted(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot pin a process to a core")
def test_a_process_pinned_to_one_core_uses_one():
    done = subprocess.run(
        [sys.executable, "-c", BOUND],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["1 1"]), done.stderr[-2000:]
