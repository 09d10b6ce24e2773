r"""Fills indices with synthetic vectors; says how long that and a search take, and what is missed.

python tools/benchmark_index.py --vectors=100000 --index_kind=FLAT --index_kind=HNSW
"""

import dataclasses

from apparel_embed.benchmarks.index import IndexBenchmark, run_index_benchmark, table_of
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define
from apparel_embed.search.index import INDEX_KINDS, IndexSettings

_BENCHMARK = BenchmarkFlags(IndexBenchmark)
_KINDS = define(
    "index_kind",
    (IndexSettings().kind,),
    "kind of index, with its default settings; repeat it",
    choices=INDEX_KINDS,
)


def main() -> None:
    """Measures, and prints a table."""
    config = _BENCHMARK.config(settings=[IndexSettings(kind) for kind in _KINDS.value])
    found = run_index_benchmark(config)
    summary = {one.kind: dataclasses.asdict(one) for one in found}
    _BENCHMARK.tell(table_of(found, config), summary)


if __name__ == "__main__":
    app.run(main)
