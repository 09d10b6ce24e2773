"""Tables of benchmarks as text."""

from __future__ import annotations

from rich.console import Console, RenderableType


def as_text(*parts: RenderableType, width: int = 120) -> str:
    """Returns sentences and tables one below the other.

    Args:
      *parts: what rich can print.
      width: of a line, in characters.
    """
    # What is in brackets or between colons is text, of a message say, and no style or picture.
    console = Console(width=width, markup=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return captured.get().rstrip()
