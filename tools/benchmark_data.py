r"""Times what is done with the table of a large manifest, and says what memory it needs.

    python tools/benchmark_data.py --rows=1000000,10000000

Loads manifests of generated rows (CSV and Parquet), holds out a validation split, opens the index
of a prepared dataset and sets up a sampler of batches; no pictures are read. Beside it the floor:
pyarrow merely reading the same file. Each runs in a process of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from apparel_embed.benchmarks.data import (
    DataBenchmark,
    run_data_benchmark,
    summary_of,
    table_of,
)
from apparel_embed.cli import app

_ROWS = flags.DEFINE_list(
    "rows", ["1000000", "10000000"], "rows of the manifests, each 100 to 100000000"
)
flags.register_validator(
    "rows",
    lambda values: (
        bool(values) and all(value.isdecimal() and 100 <= int(value) <= 10**8 for value in values)
    ),
    "allowed are whole numbers from 100 to 100000000, with commas between them",
)
_PICTURES_PER_ITEM = flags.DEFINE_integer(
    "pictures_per_item", 4, "rows with the same item (2 to 50)", 2, 50
)
_BOXES = flags.DEFINE_bool("boxes", True, "give every row a box")
_ROUNDS = flags.DEFINE_integer(
    "rounds", 1, "how often each is started, in turns (1 or more)", lower_bound=1
)
_DIRECTORY = flags.DEFINE_string(
    "directory",
    None,
    "directory for the manifests, which are removed again; ten million rows take about 1.2 GB; by "
    "default the system's place for temporary files",
)
_SEED = flags.DEFINE_integer("seed", 0, "seed of the manifests (0 or more)", lower_bound=0)
_JSON = flags.DEFINE_bool("json", False, "print one JSON object on the last line")


def main() -> None:
    """Measures, and prints a table."""
    config = DataBenchmark(
        rows=[int(rows) for rows in _ROWS.value],
        pictures_per_item=_PICTURES_PER_ITEM.value,
        boxes=_BOXES.value,
        rounds=_ROUNDS.value,
        directory=Path(_DIRECTORY.value) if _DIRECTORY.value else None,
        seed=_SEED.value,
    )
    results = run_data_benchmark(config)
    print(table_of(results, config))
    if _JSON.value:
        print(json.dumps({"sizes": summary_of(results)}))


if __name__ == "__main__":
    app.run(main)
