r"""Measures training input, bulk embedding and exact search beside what they are to keep up with.

    python tools/benchmark_pipeline.py
    python tools/benchmark_pipeline.py --part=exact_search --scales=16 --json

Every ratio is measured with both sides in turns, in one process; memory in a process that does
nothing else. Each figure is there for 1, 4 and 16 times as many images: how cost grows. About
five minutes on two cores, about one for --part=exact_search.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.pipeline import PARTS, SCALES, measure_pipeline
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_whole_numbers

_PARTS = flags.DEFINE_multi_enum("part", list(PARTS), list(PARTS), "what to measure; repeat it")
_SCALES = define_whole_numbers(
    "scales",
    [str(scale) for scale in SCALES],
    "how many times the smallest number of images to measure",
    1,
    16,
)
_BENCHMARK = BenchmarkFlags("pictures, weights and vectors")


def main() -> None:
    """Measures, and prints a table."""
    scales = sorted({int(scale) for scale in _SCALES.value})
    rows = measure_pipeline(_PARTS.value, scales, _BENCHMARK.seed)
    _BENCHMARK.tell(table("Ratios and growth with the number of pictures", rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
