"""Runs any of the binaries: `python -m apparel_embed <binary> --flag=value ...`."""

from __future__ import annotations

import runpy
import signal
import sys

from apparel_embed.cli.binaries import COMMAND, binaries, summary_of


def _help() -> str:
    """Returns the list of binaries with a one-line summary of each."""
    paths = binaries()
    width = max(map(len, paths))
    return "\n".join(
        [
            f"{COMMAND} <binary> --flag=value ...",
            "",
            "One embedding model for every apparel vertical. To try it on synthetic garments:",
            "",
            f"    {COMMAND} run_pipeline --flagfile=quickstart",
            "",
            "Binaries (use --help to list the flags of each):",
            *(f"  {name:{width}}  {summary_of(path)}" for name, path in paths.items()),
        ]
    )


def main() -> None:
    """Runs the binary named on the command line, or lists all binaries."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "-?", "--help", "help"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Exit quietly on `| head`.
        print(_help())
        return
    path = binaries().get(name.removesuffix(".py"))
    if path is None:
        sys.exit(f"{COMMAND}: no binary {name!r}; expected one of {', '.join(binaries())}")
    sys.argv = [str(path), *rest]
    # Run it as the main module: processes that it spawns import it under that name.
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main()
