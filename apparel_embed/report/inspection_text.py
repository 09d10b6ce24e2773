"""What an inspection of a dataset found, in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from apparel_embed.data.inspection.findings import ERROR, NOTE, WARNING
from apparel_embed.data.inspection.inspect import Inspection
from apparel_embed.report.inspection_sections import facts, verdict, verticals_table

_STYLES = {ERROR: "bold red", WARNING: "bold yellow", NOTE: "bold blue"}


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Prints counts and findings.

    Args:
      inspection: what was found.
      console: where to; colours and width are its own.
    """
    head = facts(inspection)
    console.print(Text(", ".join(f"{name} {value}" for name, value in head)))
    part = verticals_table(inspection)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(part.header[0], overflow="fold")
    table.add_column(part.header[1], no_wrap=True)
    for name in part.header[2:]:
        # Words below one another leave room for names; figures are never folded.
        table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in part.rows:
        # As text: brackets in a name are no markup.
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
    findings = Table.grid(padding=(0, 2, 1, 0))
    findings.add_column(no_wrap=True)
    findings.add_column(overflow="fold")
    for finding in inspection.findings:
        lines = Text(finding.what)
        example = inspection.example(finding)
        if example:
            lines.append(f"\nFor example {example}", style="dim")
        lines.append(f"\n-> {finding.advice}")
        findings.add_row(Text(finding.severity, style=_STYLES[finding.severity]), lines)
    console.print(findings)
    console.print(Text(f"{verdict(inspection)}."))
