r"""Measures training input, bulk embedding and exact search.

    python tools/benchmark_pipeline.py
    python tools/benchmark_pipeline.py --part=exact_search --scales=16 --json

Both sides of every ratio are measured alternately in one process; memory is measured in a separate
process. Each figure is given for 1, 4 and 16 times as many images, to show how cost grows. It takes
about five minutes on two cores, or about one for --part=exact_search.
"""

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.pipeline import PipelineBenchmark, measure_pipeline
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags

_BENCHMARK = BenchmarkFlags(PipelineBenchmark)


def main() -> None:
    """Runs the benchmark and prints a table."""
    rows = measure_pipeline(_BENCHMARK.config())
    title = "Ratios, and how they change with the number of images"
    _BENCHMARK.print_results(table(title, rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
