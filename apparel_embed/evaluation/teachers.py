"""What was found out of the student's teachers, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from apparel_embed.common.text import plain_text

HEADINGS = ("vertical", "taught by", "val queries", "items", "R@1 of each candidate, split val")


def choice_rows(choices: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Returns a line of text for each vertical, under `HEADINGS`.

    Args:
      choices: in the result of a targets stage.
    """
    return [
        (
            choice["vertical"],
            choice["chosen"],
            str(choice["queries"]),
            str(choice["items"]),
            ", ".join(f"{one['name']} {one['r_at_1']:.3f}" for one in choice["candidates"])
            or "no query has an answer",
        )
        for choice in choices
    ]


def render_teachers(result: Mapping[str, Any]) -> str:
    """Returns which candidate teaches each vertical as a table.

    Args:
      result: of a targets stage.
    """
    table = Table(box=box.MARKDOWN)
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in choice_rows(result["choices"]):
        table.add_row(*row)
    return plain_text(table)
