r"""Loads the search service of a run with clients, then past its limits, and prints what they met.

    python tools/benchmark_search.py --run_dir=runs/quickstart --clients=1,8,32 --seconds=30

Needs a filled index (tools/build_index.py). The clients are threads of this process and share the
machine's cores with the service.
"""

from __future__ import annotations

import sys
from pathlib import Path

from apparel_embed.benchmarks.harness import table
from apparel_embed.benchmarks.search import measure_search, query_pictures
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_number, define_whole_numbers
from apparel_embed.cli.run_flags import RunFlags

_RUN = RunFlags()
_CLIENTS = define_whole_numbers(
    "clients", ["1", "8", "32"], "numbers of clients, with commas between them", 1, 1000
)
_SECONDS = define_number("seconds", 30, "how long each number of clients asks, in seconds", 1, 3600)
_QUERIES = define_number("queries", 100, "different pictures to search by", 1, 10_000)
_BENCHMARK = BenchmarkFlags()


def main() -> None:
    """Measures, and prints a table."""
    dataset = _RUN.dataset()
    serve = Path(__file__).with_name("serve_search.py")
    service = [str(serve), f"--run_dir={_RUN.run_dir}", f"--prepared={dataset.directory}"]
    rows = measure_search(
        [sys.executable, *service],
        query_pictures(dataset, _QUERIES.value),
        [int(value) for value in _CLIENTS.value],
        _SECONDS.value,
    )
    _BENCHMARK.tell(
        table("Searches by clients that ask again as soon as they are answered", rows),
        {"rows": rows},
    )


if __name__ == "__main__":
    app.run(main)
