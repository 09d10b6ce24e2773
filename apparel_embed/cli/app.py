"""How every binary starts: parse flags, run, and tell mistakes in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from apparel_embed.errors import UserError


def parse_flags(argv: Sequence[str]) -> list[str]:
    """Returns the arguments left after flags; ends with one line if a flag is wrong."""
    try:
        rest = flags.FLAGS(list(argv))
    except flags.Error as error:
        line = " ".join(str(error).split())
        sys.exit(f"{os.path.basename(argv[0])}: {line} (--help lists the flags)")
    if len(rest) > 1:
        sys.exit(
            f"{os.path.basename(argv[0])}: unexpected argument {rest[1]!r}; "
            "everything is given as --flag=value (--help lists the flags)"
        )
    return rest


def run(main: Callable[[], None]) -> None:
    """Runs `main` after parsing flags; a `UserError` becomes one line and exit status 1.

    Args:
      main: the binary's work, called without arguments.
    """
    # TensorFlow's C++ side prints pages about CPUs and missing GPUs at its default level.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    def body(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.INFO)
        try:
            main()
        except UserError as error:
            sys.exit(f"{os.path.basename(argv[0])}: {error}")

    app.run(body, flags_parser=parse_flags)
