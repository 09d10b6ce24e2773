"""Locations of the binaries and recipes: next to the package in a clone, inside it in a wheel."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
# The name of the package's command in a wheel; setup.py defines it.
COMMAND = "apparel_embed"


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def binaries() -> dict[str, Path]:
    """Returns the paths of the binaries, keyed by name in alphabetical order."""
    return {path.stem: path for path in sorted(_folder("tools").glob("[!_]*.py"))}


def summary_of(path: Path) -> str:
    """Returns the first line of a binary's docstring, without running the binary."""
    doc = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return doc.partition("\n")[0]


def flag_file(name: str) -> str:
    """Returns the path of a flag file.

    Args:
      name: a path or, if no such file exists, the name of a recipe in this package, with or
        without its folder and extension: `quickstart`, `flags/quickstart.flags`.
    """
    path = Path(name)
    recipe = _folder("flags") / f"{path.stem}.flags"
    is_recipe = path.parent.name in ("", "flags") and recipe.is_file()
    return str(recipe) if is_recipe and not path.exists() else name


def as_called(text: str) -> str:
    """Returns `text` with its commands rewritten for the way this package is installed.

    In a clone, they stay as in `python tools/evaluate.py`; in a wheel: `apparel_embed evaluate`.
    """
    if not (_PACKAGE / "tools").is_dir():
        return text
    return re.sub(r"(?:python )?\btools/(\w+)\.py\b", rf"{COMMAND} \1", text)
