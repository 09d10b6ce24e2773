r"""Times what is done with the table of a large manifest, and says what memory it needs.

    python tools/benchmark_data.py --rows=1000000,10000000

Loads manifests of generated rows (CSV and Parquet), holds out a validation split, opens the index
of a prepared dataset and sets up a sampler of batches; no pictures are read. Beside it the floor:
pyarrow merely reading the same file. Each runs in a process of its own.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.benchmarks.data import measure_data
from apparel_embed.benchmarks.harness import table
from apparel_embed.cli import app
from apparel_embed.cli.benchmark_flags import BenchmarkFlags
from apparel_embed.cli.define import define_number, define_whole_numbers

_ROWS = define_whole_numbers("rows", ["1000000", "10000000"], "rows of the manifests", 100, 10**8)
_PICTURES_PER_ITEM = define_number("pictures_per_item", 4, "rows with the same item", 2, 50)
_BOXES = flags.DEFINE_bool("boxes", True, "give every row a box")
_ROUNDS = define_number("rounds", 1, "how often each is started, in turns", 1)
_DIRECTORY = flags.DEFINE_string(
    "directory",
    None,
    "directory for the manifests, which are removed again; ten million rows take about 1.2 GB; by "
    "default the system's place for temporary files",
)
_BENCHMARK = BenchmarkFlags("the manifests")


def main() -> None:
    """Measures, and prints a table."""
    rows = measure_data(
        [int(rows) for rows in _ROWS.value],
        pictures_per_item=_PICTURES_PER_ITEM.value,
        boxes=_BOXES.value,
        rounds=_ROUNDS.value,
        directory=Path(_DIRECTORY.value) if _DIRECTORY.value else None,
        seed=_BENCHMARK.seed,
    )
    _BENCHMARK.tell(table("Work on manifests; ratios are of CPU seconds.", rows), {"rows": rows})


if __name__ == "__main__":
    app.run(main)
