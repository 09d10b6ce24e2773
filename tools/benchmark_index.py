r"""Measures a search index: time to fill it, search latency and recall.

    python tools/benchmark_index.py --vectors=100000
    python tools/benchmark_index.py --vectors=100000 --night=1000
    python tools/benchmark_index.py --vectors=100000 --index_uri=http://localhost:19530 \
      --index_kind=FLAT --index_kind=HNSW

An index in a file is always FLAT; other kinds need a Milvus server. --night also applies a nightly
delta of that many images to an index file while it is searched.
"""

from apparel_embed.benchmarks.delta import measure_delta
from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.index import IndexBenchmark, measure_indices
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define
from apparel_embed.search.index import INDEX_KINDS, IndexSettings

_BENCHMARK = BenchmarkFlags(IndexBenchmark)
_KINDS = define(
    "index_kind",
    (IndexSettings().kind,),
    "kind of index, with its default settings; may be repeated",
    choices=INDEX_KINDS,
)


def main() -> None:
    """Runs the benchmark and prints a table."""
    config = _BENCHMARK.config(settings=[IndexSettings(kind) for kind in _KINDS.value])
    rows = measure_indices(config)
    title = f"{config.vectors:,} vectors of {config.dim} numbers, recall@{config.k}"
    shown, figures = table(title, rows), {"rows": rows}
    if config.night:
        night = measure_delta(config)
        shown += "\n" + table(f"A nightly delta of {config.night:,} images", [night])
        figures["delta"] = [night]
    _BENCHMARK.print_results(shown, figures)


if __name__ == "__main__":
    app.run(main)
