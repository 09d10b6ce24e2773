r"""Times the semi-hard triplet loss and its gradient, and says what memory they need.

    python tools/benchmark_losses.py --batch_sizes=256,512,1024,4096,8192 --pictures_per_item=4

Beside it TensorFlow Addons' (where it fits into memory) and the floor: the products of all pairs of
embeddings and their gradient alone. Each runs in a process of its own.
"""

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.losses import LossBenchmark, measure_losses
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags

_BENCHMARK = BenchmarkFlags(LossBenchmark)


def main() -> None:
    """Measures, and prints a table."""
    rows = measure_losses(_BENCHMARK.config())
    _BENCHMARK.tell(table("Semi-hard loss and gradient; medians.", rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
