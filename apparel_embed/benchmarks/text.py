"""Tables of benchmarks as text."""

from __future__ import annotations

from rich.console import Console, RenderableType


def as_text(*parts: RenderableType, width: int = 120) -> str:
    """Returns sentences and tables one below the other.

    Args:
      *parts: what rich can print.
      width: of a line, in characters.
    """
    console = Console(width=width)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return captured.get().rstrip()
