"""Tells what is wrong with a dataset before anything is trained on it.

    python tools/inspect_dataset.py --manifest=data/manifest.csv --output=data/health

Writes index.html (one file, readable offline), summary.json (all counts) and findings.csv (every
row that a finding is about), and prints the findings: items and queries that cannot be used,
pictures that are missing, broken, small, or there more than once across items or splits, names that
differ by case only. Pictures are opened and cropped as prepare_dataset does. `--noopen_pictures`
looks at the table alone, `--sample=N` opens N pictures of a large set. For checks of every change
`--fail_on=error` ends with status 2 if there is an error.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from apparel_embed.cli import app
from apparel_embed.cli.ending import tell_end
from apparel_embed.cli.inspect_flags import InspectFlags
from apparel_embed.cli.machine_flags import ProcessesFlag
from apparel_embed.data.inspection.findings import ERROR, WARNING
from apparel_embed.data.inspection.inspect import inspect
from apparel_embed.report.inspection import (
    PAGE_FILE,
    check_output,
    print_inspection,
    write_inspection,
)

_MANIFEST = flags.DEFINE_string("manifest", None, "manifest, CSV or Parquet", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "directory for the report", required=True)
_INSPECT = InspectFlags()
_PROCESSES = ProcessesFlag()
_FAIL_ON = flags.DEFINE_enum(
    "fail_on",
    "never",
    [ERROR, WARNING, "never"],
    "least severity of a finding that makes the binary end with status 2",
)


def main() -> None:
    """Inspects the dataset, writes the report, and prints what was found."""
    config = _INSPECT.config(Path(_MANIFEST.value))
    output = Path(_OUTPUT.value)
    # To open all pictures may take hours.
    check_output(output)
    inspection = inspect(config, processes=_PROCESSES.value)
    write_inspection(inspection, output)
    # Where nobody watches there is no width to fit.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    print_inspection(inspection, console)
    run = f"python tools/run_pipeline.py --manifest={shlex.quote(_MANIFEST.value)}"
    tell_end(
        [
            ("Report", output / PAGE_FILE),
            ("Next", f"{run} --run_dir=runs/mine"),
        ]
    )
    if _FAIL_ON.value != "never" and inspection.has_finding(_FAIL_ON.value):
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
