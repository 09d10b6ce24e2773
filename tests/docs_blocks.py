"""The code blocks of the README and of the pages in `docs`."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(
    r"(?:<!-- executed: (?P<name>[a-z-]+) -->\s*\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
      page: file name.
      line: line of the file where the code begins.
      language: language given after the fence, or "".
      executed: name in `<!-- executed: name -->` before the block, or "".
      code: its content, without indentation.
    """

    page: str
    line: int
    language: str
    executed: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            page.name,
            text[: found.start("code")].count("\n") + 1,
            found["language"],
            found["name"] or "",
            textwrap.dedent(found["code"]),
        )
        for found in _BLOCK.finditer(text)
    ]


def all_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks_of(page)]
