"""Runs the binaries of the benchmarks with the smallest sizes."""

import json
from pathlib import Path

import pytest
from tiny_run import run_tool

from apparel_embed.benchmarks.data import MEASURED
from apparel_embed.models.embedding import ModelConfig, build_embedding_model
from apparel_embed.search.build import fill_index
from apparel_embed.search.config import IndexSource
from apparel_embed.search.index import IndexSettings, open_index
from apparel_embed.serving.saved_model import ExportConfig, export_saved_model

TOOLS = Path(__file__).parents[2] / "tools"
SMALLEST = {
    "data": ["--rows=100", "--rounds=1", "--directory=."],
    "index": ["--vectors=200", "--queries=2", "--embedding_dim=4", "--night=10"],
    "losses": ["--batch_sizes=8", "--rounds=1", "--seconds=0", "--implementation=apparel_embed"],
    "pipeline": ["--scales=1", "--part=exact_search"],
    "serving": [
        "--batch_size=1",
        "--rounds=1",
        "--made_up_specialists=1",
        "--image_width=8",
    ],
}


def figures(name, *arguments, place):
    """Runs a benchmark in a directory and returns its JSON figures."""
    done = run_tool(f"benchmark_{name}.py", *arguments, "--json", cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_prints_figures_as_json(name, tmp_path):
    found = figures(name, *SMALLEST[name], place=tmp_path)
    assert found
    if name == "data":
        assert [row["task"] for row in found["rows"]] == list(MEASURED)
        for row in found["rows"]:
            assert row["seconds"] > 0 and row["cpu_seconds"] > 0
            assert row["peak_mb"] is None or row["peak_mb"] > 10
        assert list(tmp_path.iterdir()) == []
    if name == "serving":
        assert found["specialists"] == 1
        assert found["specialists_parameters"] == found["student_parameters"]
    if name == "index":
        (night,) = found["delta"]
        counts = {what: night[what] for what in ("added", "changed", "removed", "embedded")}
        assert counts == {"added": 6, "changed": 2, "removed": 2, "embedded": 8}
        assert (night["embedded_again"], night["failures"]) == (0, 0)
        assert night["searches"] > 0


@pytest.mark.slow
def test_the_search_service_is_measured_under_load(tiny_prepared, tmp_path):
    saved_model = tmp_path / "saved_model" / "1"
    model = build_embedding_model(ModelConfig("small_cnn", image_size=32, embedding_dim=8))
    export_saved_model(model, saved_model, ExportConfig(warm_up=False))
    with open_index(str(tmp_path / "index.db")) as index:
        fill_index(index, IndexSource(saved_model, tiny_prepared.directory), IndexSettings())
    found = figures(
        "search",
        f"--run_dir={tmp_path}",
        f"--prepared={tiny_prepared.directory}",
        "--clients=1",
        "--seconds=1",
        "--queries=1",
        place=tmp_path,
    )
    loads = [row["load"] for row in found["rows"]]
    assert loads == [
        "warm-up", "load", "too many at once", "afterwards", "too often", "afterwards",
    ]  # fmt: skip
    assert all("x 200" in row["answers"] for row in found["rows"])
    assert all(row["errors"] == 0 for row in found["rows"])
    assert "x 503" in found["rows"][2]["answers"] and "x 429" in found["rows"][4]["answers"]
    assert found["rows"][1]["p50_ms"] > 0 and found["rows"][1]["memory_mb"] > 1


def test_every_benchmark_is_tested():
    benchmarks = {path.stem for path in TOOLS.glob("benchmark_*.py")}
    assert benchmarks == {f"benchmark_{name}" for name in (*SMALLEST, "search")}
