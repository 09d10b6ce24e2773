"""Text for messages, reports and tables, as plain characters."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

# Wide enough for any table: rich then gives every column the width its text needs.
_NO_LIMIT = 10_000


def plain_text(*parts: RenderableType, width: int | None = None) -> str:
    """Returns sentences and tables one below the other.

    What is in brackets or between colons stays as it is, and is no style and no emoji.

    Args:
      *parts: what rich can print.
      width: characters per line; longer cells are folded. None: as wide as needed.

    Returns:
      Lines without trailing blanks, the last one without its end; none is empty at begin or end.
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
    """Returns a table in the manner of Markdown, for `plain_text`.

    Args:
      header: of the columns.
      rows: the cells of each row, as many as the header has.
      left: how many columns hold names, at the left; the others hold figures, at the right. Where
        room is short cells fold at blanks, those of the first column, names without any, last.
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
    """Returns the text of a library's error, or of anything else, on one line."""
    return " ".join(str(message).split())
