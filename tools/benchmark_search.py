r"""Loads the search service of a run with clients, then past its limits, and prints what they met.

    python tools/benchmark_search.py --run_dir=runs/quickstart --clients=1,8,32 --seconds=30

Needs a filled index (tools/build_index.py). Locust makes the load, in an environment of its own. It
runs on the same machine, whose cores it shares with the service.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from absl import flags

from apparel_embed.benchmarks.search import (
    SearchBenchmark,
    run_search_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.cli import app
from apparel_embed.cli.run_flags import RunFlags

_RUN = RunFlags()
_CLIENTS = flags.DEFINE_list(
    "clients", ["1", "8", "32"], "numbers of clients, with commas between them, each 1 to 1000"
)
flags.register_validator(
    "clients",
    lambda values: (
        bool(values) and all(value.isdecimal() and 1 <= int(value) <= 1000 for value in values)
    ),
    "allowed are whole numbers from 1 to 1000, with commas between them",
)
_SECONDS = flags.DEFINE_integer(
    "seconds", 30, "how long each number of clients asks, in seconds (1 to 3600)", 1, 3600
)
_PICTURES = flags.DEFINE_integer(
    "pictures", 100, "different pictures to search by (1 to 10000)", 1, 10_000
)
_ENVIRONMENT = flags.DEFINE_string(
    "locust_environment",
    "~/.cache/apparel_embed/locust",
    "directory of the virtual environment for Locust, made where it is missing",
)
_JSON = flags.DEFINE_bool("json", False, "print one JSON object on the last line")


def main() -> None:
    """Measures, and prints a table."""
    dataset = _RUN.dataset()
    queries = dataset.select(roles=["query", "both"])[-_PICTURES.value :]
    serve = Path(__file__).with_name("serve_search.py")
    found = run_search_benchmark(
        SearchBenchmark(
            service=[
                sys.executable,
                str(serve),
                f"--run_dir={_RUN.run_dir}",
                f"--prepared={dataset.directory}",
            ],
            pictures=dataset.read_images(queries),
            clients=[int(value) for value in _CLIENTS.value],
            seconds=_SECONDS.value,
            locust_environment=Path(_ENVIRONMENT.value).expanduser(),
        )
    )
    print(table_of(found))
    if _JSON.value:
        print(json.dumps(summary_of(found)))


if __name__ == "__main__":
    app.run(main)
