r"""Times the semi-hard triplet loss and its gradient, and says what memory they need.

    python tools/benchmark_losses.py --batch_sizes=256,512,1024,4096,8192 --pictures_per_item=4

Beside it TensorFlow Addons' (where it fits into memory) and the floor: the products of all pairs of
embeddings and their gradient alone. Each runs in a process of its own.
"""

from __future__ import annotations

from absl import flags

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.losses import IMPLEMENTATIONS, measure_losses
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
_BENCHMARK = BenchmarkFlags("the embeddings")


def main() -> None:
    """Measures, and prints a table."""
    rows = measure_losses(
        [int(size) for size in _BATCH_SIZES.value],
        _IMPLEMENTATIONS.value,
        pictures_per_item=_PICTURES_PER_ITEM.value,
        dim=_DIM.value,
        margin=_MARGIN.value,
        rounds=_ROUNDS.value,
        seconds=_SECONDS.value,
        seed=_BENCHMARK.seed,
    )
    _BENCHMARK.tell(table("Semi-hard loss and gradient; medians.", rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
