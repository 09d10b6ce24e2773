"""Text for messages, reports and tables, as plain characters."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

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


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns a count with its noun: `1 query`, `1,200 queries`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def one_line(message: object) -> str:
    """Returns the text of a library's error, or of anything else, on one line."""
    return " ".join(str(message).split())
