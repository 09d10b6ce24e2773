r"""Compares the models of several runs that differ in seed or dataset.

    python tools/compare_runs.py --runs=runs/s0,runs/s1,runs/s2 --output=runs/seeds

Every run must have been evaluated (tools/evaluate.py). Runs of one dataset are averaged per query;
different datasets have equal weight. Prints R@1 over all runs and in each, and differences between
models, paired over the same queries. With --output, also writes comparison.json and comparison.txt.
"""

from pathlib import Path

from absl import flags

from apparel_embed.cli import app
from apparel_embed.cli.define import EVALUATION, define, define_seed
from apparel_embed.cli.ending import print_summary

_RUNS = define(
    "runs",
    None,
    "comma-separated directories of evaluated runs, at least 2",
    kind=tuple,
    required=True,
)
flags.register_validator(
    "runs",
    lambda values: values is None or (len(values) >= 2 and all(values)),
    "expected at least 2 comma-separated directories of runs",
)
_PREPARED = define(
    "prepared", None, "prepared dataset of all runs; by default each run's <run>/prepared"
)
_OUTPUT = define(
    "output", None, "directory for comparison.json and comparison.txt; by default not written"
)
_SEED = define_seed("the bootstrap", group=EVALUATION)


def main() -> None:
    """Compares the runs and prints the tables and a summary."""
    from apparel_embed.evaluation.table import render_runs
    from apparel_embed.runs.comparison import (
        COMPARISON_FILE,
        COMPARISON_TABLE_FILE,
        compare_runs,
        write_comparison,
    )

    runs = [Path(run) for run in _RUNS.value]
    record = compare_runs(runs, Path(_PREPARED.value) if _PREPARED.value else None, _SEED.value)
    print(render_runs(record))
    rows = [("Written", "nothing; --output=DIR saves the comparison")]
    if _OUTPUT.value:
        output = Path(_OUTPUT.value)
        write_comparison(record, output)
        rows = [
            ("Comparison", str(output / COMPARISON_FILE)),
            ("Tables", str(output / COMPARISON_TABLE_FILE)),
        ]
    export = "python tools/export_saved_model.py --run_dir=<the run to serve>"
    print_summary([*rows, ("Next", export)])


if __name__ == "__main__":
    app.run(main)
