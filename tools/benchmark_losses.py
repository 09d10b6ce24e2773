r"""Measures time and memory of the semi-hard triplet loss and its gradient.

    python tools/benchmark_losses.py --batch_sizes=256,512,1024,4096,8192 --images_per_item=4

Compares it with TensorFlow Addons' loss (if that fits into memory) and with a lower bound: only
the products of all pairs of embeddings and their gradient. Each runs in its own process.
"""

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.losses import LossBenchmark, measure_losses
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags

_BENCHMARK = BenchmarkFlags(LossBenchmark)


def main() -> None:
    """Runs the benchmark and prints a table."""
    rows = measure_losses(_BENCHMARK.config())
    _BENCHMARK.print_results(table("Semi-hard loss and gradient; medians.", rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
