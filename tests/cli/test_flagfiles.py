import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FLAGFILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "flags").glob("*.flags"))

# One process for all files, as loading TensorFlow takes longer than parsing flags.
PARSE = """
import runpy, sys
from absl import flags
runpy.run_path("tools/run_pipeline.py")
for path in sys.argv[1:]:
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["run_pipeline", "--run_dir=", f"--flagfile={path}"])
    print(flags.FLAGS.run_dir)
"""


def test_every_flag_file_contains_flags_of_the_pipeline_with_valid_values():
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *FLAGFILES], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-len(FLAGFILES) :] == [
        f"runs/{Path(path).stem}" for path in FLAGFILES
    ]


def test_every_flag_file_contains_its_command():
    for path in FLAGFILES:
        head = (ROOT / path).read_text("utf-8")
        assert f"#   python tools/run_pipeline.py --flagfile={path}" in head
