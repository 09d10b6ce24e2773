r"""Measures time and memory of work on the tables of large manifests.

    python tools/benchmark_data.py --rows=1000000,10000000

Loads manifests of generated rows (CSV and Parquet), holds out a validation split, opens the index
of a prepared dataset and creates a batch sampler; no images are read. The baseline is pyarrow
reading the same file. Each measurement runs in its own process.
"""

from apparel_embed.benchmarks.data import DataBenchmark, measure_data
from apparel_embed.benchmarks.harness import table
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags

_BENCHMARK = BenchmarkFlags(DataBenchmark)


def main() -> None:
    """Runs the benchmark and prints a table."""
    rows = measure_data(_BENCHMARK.config())
    title = "Work on manifests; ratios are of CPU seconds."
    _BENCHMARK.print_results(table(title, rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
