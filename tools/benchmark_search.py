r"""Load-tests the search service of a run, up to and past its limits.

    python tools/benchmark_search.py --run_dir=runs/quickstart --clients=1,8,32 --seconds=30

Requires a filled index (tools/build_index.py). The clients are threads of this process and share
the machine's cores with the service.
"""

import sys
from pathlib import Path

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.search import SearchBenchmark, measure_search, query_images
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define
from apparel_embed.cli.run_flags import RunFlags

_RUN = RunFlags()
_BENCHMARK = BenchmarkFlags(SearchBenchmark)
_QUERIES = define("queries", 100, "distinct query images", 1, 10_000)


def main() -> None:
    """Runs the benchmark and prints a table."""
    dataset = _RUN.run().dataset
    serve = str(Path(__file__).with_name("serve_search.py"))
    named = (f"--run_dir={_RUN.run_dir}", f"--prepared={dataset.directory}")
    config = _BENCHMARK.config(
        service=[sys.executable, serve, *named], images=query_images(dataset, _QUERIES.value)
    )
    rows = measure_search(config)
    title = "Searches by clients that send the next request as soon as they get a response"
    _BENCHMARK.print_results(table(title, rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
