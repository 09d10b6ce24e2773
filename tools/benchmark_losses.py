r"""Times the semi-hard triplet loss and its gradient, and says what memory they need.

    python tools/benchmark_losses.py --batch_sizes=256,512,1024,4096,8192 --pictures_per_item=4

Beside it TensorFlow Addons' (where it fits into memory), pytorch-metric-learning's semi-hard miner
with TripletMarginLoss, installed into an environment of its own, and the floor: the products of all
pairs of embeddings and their gradient alone. Each runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.benchmarks.losses import (
    IMPLEMENTATIONS,
    LossBenchmark,
    run_loss_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_number, define_whole_numbers

_BATCH_SIZES = define_whole_numbers(
    "batch_sizes", ["256", "512", "1024", "4096", "8192"], "pictures in a batch", 2, 65536
)
_PICTURES_PER_ITEM = define_number("pictures_per_item", 4, "pictures of each item in a batch", 1)
_IMPLEMENTATIONS = flags.DEFINE_multi_enum(
    "implementation", list(IMPLEMENTATIONS), list(IMPLEMENTATIONS), "what to measure; repeat it"
)
_DIM = define_number("embedding_dim", 64, "length of an embedding", 1)
_MARGIN = define_number("margin", 0.3, "margin of the loss", 0.0, 2.0)
_ROUNDS = define_number("rounds", 3, "how often each is started, in turns", 1)
_SECONDS = define_number("seconds", 2.0, "how long each is repeated once started, in seconds", 0.0)
_ENVIRONMENT = flags.DEFINE_string(
    "pytorch_environment",
    "~/.cache/apparel_embed/pytorch_metric_learning",
    "directory of the virtual environment for pytorch_metric_learning, made where it is missing",
)
_BENCHMARK = BenchmarkFlags("the embeddings")


def main() -> None:
    """Measures, and prints a table."""
    config = LossBenchmark(
        batch_sizes=[int(size) for size in _BATCH_SIZES.value],
        pictures_per_item=_PICTURES_PER_ITEM.value,
        implementations=_IMPLEMENTATIONS.value,
        dim=_DIM.value,
        margin=_MARGIN.value,
        rounds=_ROUNDS.value,
        seconds=_SECONDS.value,
        pytorch_environment=Path(_ENVIRONMENT.value).expanduser(),
        seed=_BENCHMARK.seed,
    )
    results = run_loss_benchmark(config)
    _BENCHMARK.tell(table_of(results, config), {"sizes": summary_of(results)})


if __name__ == "__main__":
    app.run(main)
