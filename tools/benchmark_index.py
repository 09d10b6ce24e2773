r"""Fills indices with synthetic vectors; says how long that and a search take, and what is missed.

python tools/benchmark_index.py --vectors=100000 --index_kind=FLAT --index_kind=HNSW
"""

from __future__ import annotations

from absl import flags

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.index import measure_indices
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_number
from apparel_embed.search.version import INDEX_KINDS, IndexSettings

_VECTORS = define_number("vectors", 100_000, "in the index", 100)
_DIM = define_number("embedding_dim", 64, "length of a vector", 2, 32768)
_QUERIES = define_number("queries", 100, "searches", 1)
_K = define_number("k", 10, "hits of a search", 1, 100)
_KINDS = flags.DEFINE_multi_enum(
    "index_kind",
    [IndexSettings().kind],
    INDEX_KINDS,
    "kind of index, with its default settings; repeat it",
)
_BENCHMARK = BenchmarkFlags("the vectors")


def main() -> None:
    """Measures, and prints a table."""
    rows = measure_indices(
        [IndexSettings(kind) for kind in _KINDS.value],
        vectors=_VECTORS.value,
        dim=_DIM.value,
        queries=_QUERIES.value,
        k=_K.value,
        seed=_BENCHMARK.seed,
    )
    _BENCHMARK.tell(
        table(f"{_VECTORS.value:,} vectors of {_DIM.value} numbers, recall@{_K.value}", rows),
        {"rows": rows},
    )


if __name__ == "__main__":
    app.run(main)
