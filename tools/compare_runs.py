r"""Compares the models of several runs together: other seeds, or datasets drawn anew.

    python tools/compare_runs.py --runs=runs/s0,runs/s1,runs/s2 --output=runs/seeds

Every run has been evaluated (tools/evaluate.py). Runs of one dataset are averaged query by query;
different datasets weigh the same. Prints R@1 over all runs and in each, and differences between
models, paired over the same queries; with --output also writes comparison.json and comparison.txt.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.ending import print_summary
from apparel_embed.cli.evaluation_flags import bootstrap_seed_flag
from apparel_embed.evaluation.table import render_runs
from apparel_embed.runs.comparison import (
    COMPARISON_FILE,
    COMPARISON_TABLE_FILE,
    compare_runs,
    write_comparison,
)

_RUNS = flags.DEFINE_list(
    "runs", None, "comma-separated directories of evaluated runs, at least 2", required=True
)
flags.register_validator(
    "runs",
    lambda values: values is None or (len(values) >= 2 and all(values)),
    "allowed are at least 2 directories of runs, with commas between them",
)
_PREPARED = flags.DEFINE_string(
    "prepared", None, "prepared dataset of all runs; by default <run>/prepared of each"
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "directory for comparison.json and comparison.txt; by default none is written"
)
_SEED = bootstrap_seed_flag()


def main() -> None:
    """Compares, prints the tables, and says what was written."""
    record = compare_runs(
        [Path(run) for run in _RUNS.value],
        Path(_PREPARED.value) if _PREPARED.value else None,
        _SEED.value,
    )
    print(render_runs(record, width=120))
    if _OUTPUT.value:
        output = Path(_OUTPUT.value)
        write_comparison(record, output)
        written = [
            ("Comparison", output / COMPARISON_FILE),
            ("Tables", output / COMPARISON_TABLE_FILE),
        ]
    else:
        written = [("Written", "nothing; --output=DIR keeps the comparison")]
    export = "python tools/export_saved_model.py --run_dir=<the run to serve>"
    print_summary([*written, ("Next", export)])


if __name__ == "__main__":
    app.run(main)
