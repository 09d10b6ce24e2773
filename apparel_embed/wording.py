"""Numbers and their nouns, as messages and reports tell them."""

from __future__ import annotations


def counted(count: int, one: str, many: str | None = None) -> str:
    """Returns a count with its noun: `1 query`, `1,200 queries`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def one_line(message: object) -> str:
    """Returns the text of a library's error, or of anything else, on one line."""
    return " ".join(str(message).split())
