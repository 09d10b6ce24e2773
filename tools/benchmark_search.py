r"""Loads the search service of a run with clients, then past its limits, and prints what they met.

    python tools/benchmark_search.py --run_dir=runs/quickstart --clients=1,8,32 --seconds=30

Needs a filled index (tools/build_index.py). Locust makes the load, in an environment of its own. It
runs on the same machine, whose cores it shares with the service.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from apparel_embed.benchmarks.search import (
    SearchBenchmark,
    query_pictures,
    run_search_benchmark,
    summary_of,
    table_of,
)
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
_ENVIRONMENT = flags.DEFINE_string(
    "locust_environment",
    "~/.cache/apparel_embed/locust",
    "directory of the virtual environment for Locust, made where it is missing",
)
_BENCHMARK = BenchmarkFlags()


def main() -> None:
    """Measures, and prints a table."""
    dataset = _RUN.dataset()
    serve = Path(__file__).with_name("serve_search.py")
    found = run_search_benchmark(
        SearchBenchmark(
            service=[
                sys.executable,
                str(serve),
                f"--run_dir={_RUN.run_dir}",
                f"--prepared={dataset.directory}",
            ],
            pictures=query_pictures(dataset, _QUERIES.value),
            clients=[int(value) for value in _CLIENTS.value],
            seconds=_SECONDS.value,
            locust_environment=Path(_ENVIRONMENT.value).expanduser(),
        )
    )
    _BENCHMARK.tell(table_of(found), summary_of(found))


if __name__ == "__main__":
    app.run(main)
