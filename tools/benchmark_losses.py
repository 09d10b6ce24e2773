r"""Times the semi-hard triplet loss and its gradient, and says what memory they need.

    python tools/benchmark_losses.py --batch_sizes=256,512,1024,4096,8192 --pictures_per_item=4

Beside it TensorFlow Addons' (where it fits into memory), pytorch-metric-learning's semi-hard miner
with TripletMarginLoss, installed into an environment of its own, and the floor: the products of all
pairs of embeddings and their gradient alone. Each runs in a process of its own.
"""

from apparel_embed.benchmarks.losses import LossBenchmark, run_loss_benchmark, summary_of, table_of
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags

_BENCHMARK = BenchmarkFlags(LossBenchmark)


def main() -> None:
    """Measures, and prints a table."""
    config = _BENCHMARK.config()
    results = run_loss_benchmark(config)
    _BENCHMARK.tell(table_of(results, config), {"sizes": summary_of(results)})


if __name__ == "__main__":
    app.run(main)
