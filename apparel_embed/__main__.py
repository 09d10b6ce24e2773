"""One command for all binaries: `python -m apparel_embed <binary> --flag=value ...`."""

from __future__ import annotations

import runpy
import signal
import sys

from apparel_embed.cli.binaries import COMMAND, binaries, summary_of


def _help() -> str:
    """Returns the list of binaries, with a line about each."""
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
            "Binaries; each explains its flags by --help:",
            *(f"  {name:{width}}  {summary_of(path)}" for name, path in paths.items()),
        ]
    )


def main() -> None:
    """Runs the binary that the command line names, or lists all of them."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "-?", "--help", "help"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly.
        print(_help())
        return
    path = binaries().get(name.removesuffix(".py"))
    if path is None:
        sys.exit(f"{COMMAND}: no binary {name!r}; expected one of {', '.join(binaries())}")
    sys.argv = [str(path), *rest]
    # As if it had been started itself: processes that it spawns import it as their main module.
    runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main()
