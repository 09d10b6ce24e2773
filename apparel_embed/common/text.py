"""Plain text of messages, reports and tables."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

# Wide enough for any table: rich then gives every column the width its text needs.
_NO_LIMIT = 10_000


def plain_text(*parts: RenderableType, width: int | None = None) -> str:
    """Returns sentences and tables, one below the other.

    Text in brackets or between colons stays as it is: it is not read as a style or an emoji.

    Args:
      *parts: anything that rich can print.
      width: characters per line; longer cells are folded. None: as wide as needed.

    Returns:
      Lines without trailing blanks; without empty lines or line breaks at the start or end.
    """
    text = io.StringIO()
    console = Console(
        file=text,
        width=width or _NO_LIMIT,
        color_system=None,
        force_terminal=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Table:
    """Returns a Markdown table for `plain_text`.

    Args:
      header: titles of the columns.
      rows: cells of each row, one per column.
      left: number of leading columns that contain names and are left-aligned; the others contain
        numbers and are right-aligned. If space is short, cells fold at blanks, those of the first
        column last.
    """
    table = Table(box=box.MARKDOWN)
    for number, title in enumerate(header):
        table.add_column(
            title,
            justify="left" if number < left else "right",
            overflow="fold",
            no_wrap=not number,
        )
    for row in rows:
        table.add_row(*row)
    return table


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns a count with its noun: `1 query`, `1,200 queries`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def one_line(message: object) -> str:
    """Returns the text of an error, or of any other object, on one line."""
    return " ".join(str(message).split())
