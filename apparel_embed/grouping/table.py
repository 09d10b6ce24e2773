"""The content of `groups.json` as text for people."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def render_search(record: Mapping[str, Any], width: int = 120) -> str:
    """Returns the decisions as a table, then the groups.

    Args:
      record: content of `groups.json`.
      width: characters per line.
    """
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, markup=False)
    if record["decisions"]:
        console.print(_decisions(record))
    minutes = record["trained_seconds"] / 60
    console.print(
        f"{len(record['trials'])} trainings of {record['trained_steps']:,} steps together, "
        f"{minutes:.1f} minutes"
    )
    if not record["complete"]:
        console.print("The budget was spent: these are the best groups found within it.")
    for group in record["groups"]:
        console.print(f"  {' + '.join(group)}")
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _decisions(record: Mapping[str, Any]) -> Table:
    rule = record["rule"]
    table = Table(
        title=f"Accepted if every vertical's R@1 is above its own specialist's less "
        f"{rule['tolerance']:g}, with {rule['confidence']:.0%} confidence each",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("tried", "accepted", "vertical that decides: difference, interval"):
        table.add_column(heading)
    for decision in record["decisions"]:
        accepted = "yes" if decision["accepted"] else "no"
        table.add_row(" + ".join(decision["group"]), accepted, decision["why"])
    return table
