r"""Measures the time and memory that the table of a large manifest takes.

    python tools/benchmark_data.py --rows=1000000,10000000

Loads manifests of generated rows (CSV and Parquet), holds out a validation split, opens the index
of a prepared dataset and sets up a sampler of batches; no images are read. The floor to compare
with is pyarrow merely reading the same file. Each runs in its own process.
"""

from apparel_embed.benchmarks.data import DataBenchmark, measure_data
from apparel_embed.benchmarks.harness import table
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags

_BENCHMARK = BenchmarkFlags(DataBenchmark)


def main() -> None:
    """Measures, and prints a table."""
    rows = measure_data(_BENCHMARK.config())
    _BENCHMARK.tell(table("Work on manifests; ratios are of CPU seconds.", rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
