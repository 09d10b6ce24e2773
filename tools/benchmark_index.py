r"""Fills indices with synthetic vectors; says how long that and a search take, and what is missed.

python tools/benchmark_index.py --vectors=100000 --index_kind=FLAT --index_kind=HNSW
"""

from __future__ import annotations

import dataclasses

from absl import flags

from apparel_embed.benchmarks.index import IndexBenchmark, run_index_benchmark, table_of
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_number
from apparel_embed.search.index import INDEX_KINDS, IndexSettings

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
    config = IndexBenchmark(
        vectors=_VECTORS.value,
        dim=_DIM.value,
        queries=_QUERIES.value,
        k=_K.value,
        settings=[IndexSettings(kind) for kind in _KINDS.value],
        seed=_BENCHMARK.seed,
    )
    found = run_index_benchmark(config)
    summary = {one.kind: dataclasses.asdict(one) for one in found}
    _BENCHMARK.tell(table_of(found, config), summary)


if __name__ == "__main__":
    app.run(main)
