"""Benchmarks as a user starts them, with the smallest sizes: to a real end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
SMALLEST = {
    "data": ["--rows=100", "--rounds=1"],
    "index": ["--vectors=200", "--queries=2", "--embedding_dim=4"],
    "losses": ["--batch_sizes=8", "--rounds=1", "--seconds=0", "--implementation=apparel_embed"],
    "pipeline": ["--scales=1", "--part=exact_search"],
    "serving": [
        "--batch_size=1",
        "--rounds=1",
        "--made_up_specialists=1",
        "--picture_width=8",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_ends_with_figures_for_programs(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOLS / f"benchmark_{name}.py"), *SMALLEST[name], "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])
