"""Generated pages of the site: a reference of the package and of its binaries, and the changes.

They are created from docstrings and --help when the site is built, and are not committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import apparel_embed
from apparel_embed.cli.binaries import binaries, summary_of

ROOT = Path(__file__).parents[1]
# Public modules whose names the package's root does not export.
MODULES = ("evaluation.protocol", "losses.keras3", "losses.semi_hard")

# For a page whose text needs the space of the table of contents.
WIDE = "---\nhide: [toc]\n---\n"
BINARIES = """# Binaries

In a clone, run a binary with `python tools/<binary>.py --flag=value ...`. If the package is
installed, run it with `apparel_embed <binary> --flag=value ...`. `--flagfile` takes a file or the
name of a recipe: `--flagfile=quickstart`.

| binary | what it does |
|---|---|
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages."""
    pages = {"reference/python.md": _python(), "changes.md": _changes()}
    rows = (
        f"| [{name}](binaries/{name}.md) | {summary_of(path)} |\n"
        for name, path in binaries().items()
    )
    pages["reference/binaries.md"] = BINARIES + "".join(rows)
    with ThreadPoolExecutor() as pool:
        for name, text in zip(binaries(), pool.map(_help, binaries().values())):
            pages[f"reference/binaries/{name}.md"] = f"{WIDE}# {name}\n\n```text\n{text}\n```\n"
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def _python() -> str:
    """Returns the page of all names in `apparel_embed` and of a few modules."""
    names = [f"::: apparel_embed.{apparel_embed._MODULE_OF[n]}.{n}" for n in apparel_embed.__all__]
    modules = [f"::: apparel_embed.{module}" for module in MODULES]
    start = "# Python\n\nNames in `import apparel_embed as ae`, such as `ae.EmbeddingModel`:"
    return "\n\n".join([start, *names, "Further modules:", *modules])


def _changes() -> str:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    return text.replace("](docs/", "](")


def _help(path: Path) -> str:
    environment = {**os.environ, "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, path, "--helpfull"], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{path}: --helpfull failed: {done.stderr}")
    return done.stdout.partition("\n\nFlags of libraries")[0]
