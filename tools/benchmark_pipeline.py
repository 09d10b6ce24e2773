r"""Measures training input, bulk embedding and exact search beside what they are to keep up with.

    python tools/benchmark_pipeline.py
    python tools/benchmark_pipeline.py --part=exact_search --scales=16 --json

Every ratio is measured with both sides in turns, in one process; memory in a process that does
nothing else. Each figure is there for 1, 4 and 16 times as many images: how cost grows. With --json
the last line is one object: the figures at the largest scale, and `growth`. About five minutes on
two cores, about one for --part=exact_search.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.benchmarks.pipeline import (
    PARTS,
    SCALES,
    PipelineBenchmark,
    run_pipeline_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_whole_numbers

_PARTS = flags.DEFINE_multi_enum("part", list(PARTS), list(PARTS), "what to measure; repeat it")
_SCALES = define_whole_numbers(
    "scales",
    [str(scale) for scale in SCALES],
    "how many times the smallest number of images to measure (faiss is met at 16)",
    1,
    16,
)
_BENCHMARK = BenchmarkFlags("pictures, weights and vectors")


def main() -> None:
    """Measures, and prints tables."""
    scales = sorted({int(scale) for scale in _SCALES.value})
    results = run_pipeline_benchmark(PipelineBenchmark(_PARTS.value, scales, _BENCHMARK.seed))
    _BENCHMARK.tell(table_of(results), summary_of(results))


if __name__ == "__main__":
    app.run(main)
