"""Finds problems in a dataset before anything is trained on it.

    python tools/inspect_dataset.py --manifest=data/manifest.csv --output=data/health

Writes index.html (one file, readable offline), summary.json (all counts) and findings.csv (all rows
with a finding), and prints the findings: items and queries that cannot be used; images that are
missing, broken, small or duplicated across items or splits; names that differ only in case. Images
are opened and cropped as in prepare_dataset. `--noopen_images` only checks the table; `--sample=N`
opens N images of a large dataset. For automatic checks, `--fail_on=error` exits with status 2 if
there is an error.
"""

import sys
from pathlib import Path

from rich.console import Console

from apparel_embed.cli import app
from apparel_embed.cli.define import ConfigFlags, define
from apparel_embed.cli.ending import print_summary, training_command
from apparel_embed.cli.shared_flags import ProcessesFlag
from apparel_embed.data.inspection.config import InspectConfig
from apparel_embed.data.inspection.findings import ERROR, WARNING
from apparel_embed.data.inspection.inspect import inspect

_MANIFEST = define("manifest", None, "manifest, CSV or Parquet", required=True)
_OUTPUT = define("output", None, "directory for the report", required=True)
_INSPECT = ConfigFlags(InspectConfig)
_PROCESSES = ProcessesFlag()
_FAIL_ON = define(
    "fail_on",
    "never",
    "lowest severity of a finding that makes the binary exit with status 2",
    choices=(ERROR, WARNING, "never"),
)


def main() -> None:
    """Inspects the dataset, writes the report and prints the findings."""
    from apparel_embed.report.inspection import (
        PAGE_FILE,
        check_output,
        print_inspection,
        write_inspection,
    )

    config = _INSPECT.config(manifest=Path(_MANIFEST.value))
    output = Path(_OUTPUT.value)
    # Checked first, since opening all images may take hours.
    check_output(output)
    inspection = inspect(config, processes=_PROCESSES.value)
    write_inspection(inspection, output)
    # Without a terminal there is no width to fit.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    print_inspection(inspection, console)
    print_summary([("Report", output / PAGE_FILE), ("Next", training_command(_MANIFEST.value))])
    if _FAIL_ON.value != "never" and inspection.has_finding(_FAIL_ON.value):
        sys.exit(2)


if __name__ == "__main__":
    app.run(main)
