"""The content of `groups.json` as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from apparel_embed.common.text import plain_text


def render_search(record: Mapping[str, Any], width: int = 120) -> str:
    """Returns the decisions as a table, then the groups.

    Args:
      record: content of `groups.json`.
      width: characters per line.
    """
    decisions = [_decisions(record)] if record["decisions"] else []
    minutes = record["trained_seconds"] / 60
    spent = "The budget was spent: these are the best groups found within it."
    return plain_text(
        *decisions,
        f"{len(record['trials'])} trainings of {record['trained_steps']:,} steps together, "
        f"{minutes:.1f} minutes",
        *([] if record["complete"] else [spent]),
        *(f"  {' + '.join(group)}" for group in record["groups"]),
        width=width,
    )


def _decisions(record: Mapping[str, Any]) -> Table:
    rule = record["rule"]
    table = Table(
        title="Accepted if no vertical's R@1 is expected to fall more than "
        f"{rule['tolerance']:g} below its own specialist's",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for heading in ("tried", "accepted", "vertical that decides: difference, interval"):
        table.add_column(heading)
    for decision in record["decisions"]:
        accepted = "yes" if decision["accepted"] else "no"
        table.add_row(" + ".join(decision["group"]), accepted, decision["why"])
    return table
